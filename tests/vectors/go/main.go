// Vectors as JSON on standard input; what the Go library says of each, by name, on standard output.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type vector struct {
	Name, Secret, ID, Timestamp, Signature, Body string
}

func main() {
	var vectors []vector
	if err := json.NewDecoder(os.Stdin).Decode(&vectors); err != nil {
		log.Fatal(err)
	}
	holds := map[string]bool{}
	for _, v := range vectors {
		webhook, err := standardwebhooks.NewWebhook(v.Secret)
		if err != nil {
			log.Fatal(v.Name, ": ", err)
		}
		headers := http.Header{}
		headers.Set("webhook-id", v.ID)
		headers.Set("webhook-timestamp", v.Timestamp)
		headers.Set("webhook-signature", v.Signature)
		// it is the signature that is looked at, not its age
		holds[v.Name] = webhook.VerifyIgnoringTimestamp([]byte(v.Body), headers) == nil
	}
	if err := json.NewEncoder(os.Stdout).Encode(holds); err != nil {
		log.Fatal(err)
	}
}
