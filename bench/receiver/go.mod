module speech-relay/bench/receiver

go 1.21
