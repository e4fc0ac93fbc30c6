// LiveKit's own webhook notifier, as livekit-server builds it: one queue in memory, requests signed, nothing stored. It is
// given events of about 1 KB as fast as it sends them. It ends once all of them were sent, and prints the seconds.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	key    = "key"
	secret = "a-secret-of-more-than-thirty-two-characters"
	// The notifier drops an event if its room has more than this many waiting.
	mostWaiting = 150
)

func main() {
	url := flag.String("url", "", "where to send the events")
	events := flag.Int("events", 0, "how many")
	rooms := flag.Int("rooms", 0, "over how many rooms, which the notifier keeps in order")
	flag.Parse()

	webhook.InitWebhookStats(prometheus.Labels{})
	notifier, err := webhook.NewDefaultNotifier(
		webhook.WebHookConfig{URLs: []string{*url}, APIKey: key, ResourceURLNotifier: webhook.DefaultResourceURLNotifierConfig},
		auth.NewSimpleKeyProvider(key, secret),
	)
	if err != nil {
		log.Fatal(err)
	}
	waiting := make(map[string]*atomic.Int64, *rooms)
	for room := range *rooms {
		waiting[name(room)] = new(atomic.Int64)
	}
	var left sync.WaitGroup
	left.Add(*events)
	notifier.RegisterProcessedHook(func(_ context.Context, info *livekit.WebhookInfo) {
		if info.IsDropped || info.SendError != "" {
			log.Fatalf("an event was not sent: %s", info.SendError)
		}
		waiting[info.RoomName].Add(-1)
		left.Done()
	})

	padding := strings.Repeat("x", 800)
	began := time.Now()
	for number := range *events {
		room := name(number % *rooms)
		for waiting[room].Load() >= mostWaiting {
			time.Sleep(time.Millisecond)
		}
		waiting[room].Add(1)
		marker := fmt.Sprintf("bm|%s|%d|%d|mb", room, number / *rooms + 1, time.Now().UnixNano())
		event := &livekit.WebhookEvent{
			Event: webhook.EventParticipantJoined,
			Id:    fmt.Sprintf("EV_%d", number),
			Room:  &livekit.Room{Name: room, Sid: "RM_bench", Metadata: marker + padding},
		}
		if err := notifier.QueueNotify(context.Background(), event); err != nil {
			log.Fatal(err)
		}
	}
	left.Wait()
	fmt.Println(time.Since(began).Seconds())
}

func name(room int) string {
	return fmt.Sprintf("room-%d", room)
}
