// Many people who join a room at once, and next to nothing of the machine for it: they send Opus that was made before.
//
// The first line on standard input says who comes, as JSON (see call). Once all of them have joined and published, a line
// is written: "published", and for each when they began to publish, in epoch milliseconds. At a line with a number so many who have not spoken yet say the words, over and over until the next
// line. They leave when standard input is closed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

const (
	packet = 20 * time.Millisecond
	// A server has a track only once it has got a packet of it; more of silence is not worth sending.
	silentEvery = 500 * time.Millisecond
)

// silence is one packet of it, as Opus has it.
var silence = []byte{0xF8, 0xFF, 0xFE}

type call struct {
	URL    string   `json:"url"`
	Tokens []string `json:"tokens"`
	Words  [][]byte `json:"words"` // Opus packets of 20 ms, in base64
	Stereo bool     `json:"stereo"`
	Speak  bool     `json:"speak"` // everybody speaks from the beginning
}

type person struct {
	room      *lksdk.Room
	track     *lksdk.LocalTrack
	published time.Time
	turn      atomic.Bool
}

func join(url, token string, stereo bool) (*person, error) {
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	if err != nil {
		return nil, err
	}
	room, err := lksdk.ConnectToRoomWithToken(url, token, nil, lksdk.WithAutoSubscribe(false))
	if err != nil {
		return nil, err
	}
	published := time.Now()
	options := &lksdk.TrackPublicationOptions{Name: "microphone", Source: livekit.TrackSource_MICROPHONE, Stereo: stereo}
	if _, err := room.LocalParticipant.PublishTrack(track, options); err != nil {
		return nil, err
	}
	return &person{room: room, track: track, published: published}, nil
}

func (p *person) takePart(words [][]byte) {
	for {
		if !p.turn.Load() {
			p.send(silence)
			time.Sleep(silentEvery)
			continue
		}
		began := time.Now()
		for number, word := range words {
			p.send(word)
			time.Sleep(time.Until(began.Add(time.Duration(number+1) * packet)))
		}
	}
}

func (p *person) send(opus []byte) {
	// An error is that of a track that is gone: then nobody hears it, which is what the test looks at.
	_ = p.track.WriteSample(media.Sample{Data: opus, Duration: packet, Timestamp: time.Now()}, nil)
}

func everybody(c call) []*person {
	people := make([]*person, len(c.Tokens))
	var all sync.WaitGroup
	for i, token := range c.Tokens {
		all.Add(1)
		go func() {
			defer all.Done()
			one, err := join(c.URL, token, c.Stereo)
			if err != nil {
				log.Fatal(err)
			}
			people[i] = one
			one.turn.Store(c.Speak)
			go one.takePart(c.Words)
		}()
	}
	all.Wait()
	return people
}

func main() {
	lksdk.SetLogger(logger.LogRLogger(logr.Discard()))
	in := bufio.NewReader(os.Stdin)
	first, err := in.ReadBytes('\n')
	if err != nil {
		log.Fatal(err)
	}
	var c call
	if err := json.Unmarshal(first, &c); err != nil {
		log.Fatal(err)
	}
	people := everybody(c)
	fmt.Print("published")
	for _, one := range people {
		fmt.Print(" ", one.published.UnixMilli())
	}
	fmt.Println()
	silent := people
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		many, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			log.Fatal(err)
		}
		for _, one := range people {
			one.turn.Store(false)
		}
		for _, one := range silent[:many] {
			one.turn.Store(true)
		}
		silent = silent[many:]
	}
	for _, one := range people {
		one.room.Disconnect()
	}
}
