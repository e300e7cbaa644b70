// Reads a log as any monitor does: main <address of the log> <verifier key>. Prints the number of entries that it
// verified, and the last one.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	answer, err := http.Get(os.Args[1] + "/checkpoint")
	check(err)
	data, err := io.ReadAll(answer.Body)
	check(err)
	signed, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	checkpoint, err := torchwood.ParseCheckpoint(signed.Text)
	check(err)
	fetcher, err := torchwood.NewTileFetcher(os.Args[1])
	check(err)
	client, err := torchwood.NewClient(fetcher)
	check(err)
	var next int64
	var last []byte
	for next < checkpoint.N {
		before := next
		for index, entry := range client.Entries(context.Background(), checkpoint.Tree, next) {
			next, last = index+1, entry
		}
		check(client.Err())
		if next == before {
			log.Fatal("no further entry")
		}
	}
	for index := range next {
		_, _, err := client.Entry(context.Background(), checkpoint.Tree, index)
		check(err)
	}
	fmt.Printf("%d\n%s\n", next, last)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
