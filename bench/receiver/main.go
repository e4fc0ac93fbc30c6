// The receiver of the benches: fast enough never to be the bottleneck.
//
// A body that carries bm|<lane>|<sequence>|<created, unix nanoseconds>|mb is counted under the first part of its path:
// POST /<name> and POST /<name>/<endpoint> answer 204, and lanes of different endpoints are kept apart.
// POST /hang answers after 15 seconds. POST /flood/<kind> sends invalid data without end. GET /stats/<name> reports what arrived; DELETE /stats resets everything.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

type endpoint struct {
	sync.Mutex
	requests, duplicates, disorder int
	latencies                      []float64 // milliseconds, first arrival of each event
	last                           map[string]int64
	first, newest                  time.Time
}

var (
	lock      sync.Mutex
	endpoints = map[string]*endpoint{}
)

func named(name string) *endpoint {
	lock.Lock()
	defer lock.Unlock()
	if endpoints[name] == nil {
		endpoints[name] = &endpoint{last: map[string]int64{}}
	}
	return endpoints[name]
}

func receive(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	body, _ := io.ReadAll(r.Body)
	name, of, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	if name == "hang" {
		select {
		case <-time.After(15 * time.Second):
		case <-r.Context().Done():
		}
	}
	e := named(name)
	e.Lock()
	if e.requests == 0 {
		e.first = now
	}
	e.requests++
	e.newest = now
	if lane, sequence, created, ok := marker(body); ok {
		lane += "/" + of
		switch {
		case sequence > e.last[lane]:
			e.last[lane] = sequence
			e.latencies = append(e.latencies, float64(now.UnixNano()-created)/1e6)
		case sequence == e.last[lane]:
			e.duplicates++
		default:
			e.disorder++
		}
	}
	e.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

var floods = map[string][2]string{ // the first bytes, and the bytes repeated without end
	"continue":  {"", "HTTP/1.1 100 Continue\r\n\r\n"},
	"hints":     {"", "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"},
	"extension": {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "a"},
	"trailers":  {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"},
}

func flood(w http.ResponseWriter, r *http.Request) {
	_, _ = io.ReadAll(r.Body)
	parts := floods[strings.TrimPrefix(r.URL.Path, "/flood/")]
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	_, err = io.WriteString(connection, parts[0])
	for piece := []byte(strings.Repeat(parts[1], 1+65536/len(parts[1]))); err == nil; {
		_, err = connection.Write(piece)
	}
}

func marker(body []byte) (lane string, sequence, created int64, ok bool) {
	from := bytes.Index(body, []byte("bm|"))
	if from < 0 {
		return
	}
	until := bytes.Index(body[from:], []byte("|mb"))
	if until < 0 {
		return
	}
	parts := strings.Split(string(body[from:from+until]), "|")
	if len(parts) != 4 {
		return
	}
	sequence, _ = strconv.ParseInt(parts[2], 10, 64)
	created, _ = strconv.ParseInt(parts[3], 10, 64)
	return parts[1], sequence, created, true
}

func stats(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		lock.Lock()
		endpoints = map[string]*endpoint{}
		lock.Unlock()
		return
	}
	e := named(strings.TrimPrefix(r.URL.Path, "/stats/"))
	e.Lock()
	defer e.Unlock()
	sorted := append([]float64{}, e.latencies...)
	sort.Float64s(sorted)
	at := func(q float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"requests": e.requests, "events": len(sorted), "duplicates": e.duplicates, "disorder": e.disorder,
		"seconds": e.newest.Sub(e.first).Seconds(), "p50_ms": at(.5), "p95_ms": at(.95), "p99_ms": at(.99), "max_ms": at(1),
	})
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }() // ends with the process that started it
	http.HandleFunc("/stats/", stats)
	http.HandleFunc("/stats", stats)
	http.HandleFunc("/flood/", flood)
	http.HandleFunc("/", receive)
	_ = http.Serve(listener, nil)
}
