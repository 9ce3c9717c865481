// Checks histories of a journal's streams with porcupine: is there an order of the operations, each at one moment
// between its call and its answer, in which a stream that does one thing at a time gives the same answers?
//
// In: one history a line, {"name": ..., "operations": [...]}, of operations as in `operation` below. Out: one line a
// history, {"name", "verdict": "ok", "illegal" or "unknown" (out of time), "streams", "operations", "text"}.
//
// An operation whose outcome nobody was told of stays open to the end of the history. There it has no effect that
// anyone sees, so "it never happened" is the same as "it happened last".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What was asked and what was told. Each stream has a slot of its own, whose grants its fences name.
type operation struct {
	Stream string `json:"stream,omitempty"`
	Client int    `json:"client,omitempty"`
	Call   int64  `json:"call,omitempty"`
	Return int64  `json:"return,omitempty"`
	Kind   string `json:"kind,omitempty"` // append, read, load, claim, release

	// append: the number of the append (repeats have the same), and what it expects
	Key      int    `json:"key,omitempty"`
	Events   int    `json:"events,omitempty"`
	Snapshot bool   `json:"snapshot,omitempty"`
	Expect   string `json:"expect,omitempty"` // any, none, exists, exactly
	At       int    `json:"at,omitempty"`
	Fence    int    `json:"fence,omitempty"` // the epoch; 0: none
	Session  int    `json:"session,omitempty"`
	Epoch    int    `json:"epoch,omitempty"` // release

	// ok, conflict, fenced, unknown, or anything else, which is never right

	Outcome  string `json:"outcome,omitempty"`
	Sequence int    `json:"sequence,omitempty"`
	Repeated bool   `json:"repeated,omitempty"`
	Records  string `json:"records,omitempty"` // read, load: "KEY.INDEX@SEQUENCE " of each record
	// claim, release, fenced: the newest grant
	FoundEpoch    int  `json:"found_epoch,omitempty"`
	FoundSession  int  `json:"found_session,omitempty"`
	FoundReleased bool `json:"found_released,omitempty"`
}

type applied struct{ key, sequence int }

type stream struct {
	sequence int
	appends  []applied
	records  string // as a read tells them
	loaded   string // as a load tells them: the newest snapshot and what came after it
	epoch    int
	session  int
	released bool
}

func (s stream) find(key int) (applied, bool) {
	for _, a := range s.appends {
		if a.key == key {
			return a, true
		}
	}
	return applied{}, false
}

func (s stream) holds(o operation) bool {
	switch o.Expect {
	case "none":
		return len(s.appends) == 0
	case "exists":
		return len(s.appends) > 0
	case "exactly":
		return s.sequence == o.At
	}
	return true
}

func (s stream) with(o operation) stream {
	var added strings.Builder
	for i := 0; i < o.Events; i++ {
		s.sequence++
		fmt.Fprintf(&added, "%d.%d@%d ", o.Key, i, s.sequence)
	}
	s.records += added.String()
	s.loaded += added.String()
	if o.Snapshot {
		s.loaded = fmt.Sprintf("%d.%d@%d ", o.Key, o.Events, s.sequence)
		s.records += s.loaded
	}
	s.appends = append(s.appends[:len(s.appends):len(s.appends)], applied{o.Key, s.sequence})
	return s
}

// Repetition is looked at before fences, fences before expectations.
func (s stream) append(o operation) (bool, stream) {
	if before, there := s.find(o.Key); there {
		return o.Outcome == "unknown" ||
			o.Outcome == "ok" && o.Repeated && o.Sequence == before.sequence, s
	}
	if o.Fence != 0 && (o.Fence != s.epoch || s.released) {
		return o.Outcome == "unknown" || o.Outcome == "fenced" && o.FoundEpoch == s.epoch, s
	}
	if !s.holds(o) {
		return o.Outcome == "unknown" || o.Outcome == "conflict" && o.Sequence == s.sequence, s
	}
	s = s.with(o)
	return o.Outcome == "unknown" || o.Outcome == "ok" && !o.Repeated && o.Sequence == s.sequence, s
}

func (s stream) told(o operation) bool {
	return o.Outcome == "unknown" || o.Outcome == "ok" && o.FoundEpoch == s.epoch &&
		(s.epoch == 0 || o.FoundSession == s.session && o.FoundReleased == s.released)
}

func step(state, input, output interface{}) (bool, interface{}) {
	s, o := state.(stream), input.(operation)
	switch o.Kind {
	case "append":
		return s.append(o)
	case "read":
		return o.Outcome == "ok" && o.Records == s.records, s
	case "load":
		return o.Outcome == "ok" && o.Records == s.loaded && o.Sequence == s.sequence, s
	case "claim":
		if s.epoch == 0 || s.released {
			s.epoch, s.session, s.released = s.epoch+1, o.Session, false
		}
		return s.told(o), s
	case "release":
		if s.epoch == o.Epoch && s.session == o.Session {
			s.released = true
		}
		return s.told(o), s
	}
	return false, s
}

func equal(a, b interface{}) bool {
	s, t := a.(stream), b.(stream)
	if s.sequence != t.sequence || s.epoch != t.epoch || s.session != t.session || s.released != t.released ||
		s.records != t.records {
		return false
	}
	return s.loaded == t.loaded
}

type history struct {
	Name       string      `json:"name"`
	Operations []operation `json:"operations"`
}

type answer struct {
	Name       string `json:"name"`
	Verdict    string `json:"verdict"`
	Streams    int    `json:"streams"`
	Operations int    `json:"operations"`
	Text       string `json:"text"`
}

const shownOperations = 16

func line(o operation) string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

// For people, of a stream that has no order: the end of the longest beginning of one, what the stream is then, and
// what cannot come next.
func shown(model porcupine.Model, operations []porcupine.Operation, limit time.Duration) string {
	_, info := porcupine.CheckOperationsVerbose(model, operations, limit)
	longest := []porcupine.Operation{}
	for _, part := range info.PartialLinearizationsOperations()[0] {
		if len(part) > len(longest) {
			longest = part
		}
	}
	var text strings.Builder
	var s interface{} = stream{}
	placed := map[string]int{}
	for i, o := range longest {
		_, s = step(s, o.Input, nil)
		placed[line(o.Input.(operation))]++
		if i+shownOperations >= len(longest) {
			text.WriteString(line(o.Input.(operation)))
		}
	}
	fmt.Fprintf(&text, "%d operations up to here: %+v\nThen none of:\n", len(longest), s)
	sort.Slice(operations, func(i, j int) bool { return operations[i].Call < operations[j].Call })
	first := int64(math.MaxInt64)
	for _, o := range operations {
		if key := line(o.Input.(operation)); placed[key] > 0 {
			placed[key]--
		} else if o.Call <= first {
			text.WriteString(key)
			first = min(first, o.Return)
		}
	}
	return text.String()
}

func check(h history, limit time.Duration) answer {
	streams := map[string][]porcupine.Operation{}
	for _, o := range h.Operations {
		end := o.Return
		if o.Outcome == "unknown" {
			end = math.MaxInt64
		}
		streams[o.Stream] = append(streams[o.Stream],
			porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Return: end})
	}
	model := porcupine.Model{Init: func() interface{} { return stream{} }, Step: step, Equal: equal}
	a := answer{Name: h.Name, Verdict: "ok", Streams: len(streams), Operations: len(h.Operations)}
	for name, operations := range streams {
		switch porcupine.CheckOperationsTimeout(model, operations, limit) {
		case porcupine.Illegal:
			return answer{h.Name, "illegal", len(streams), len(h.Operations),
				name + "\n" + shown(model, operations, limit)}
		case porcupine.Unknown:
			a.Verdict, a.Text = "unknown", name+": not decided in "+limit.String()
		}
	}
	return a
}

func main() {
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil || seconds <= 0 {
		fmt.Fprintln(os.Stderr, "usage: linear SECONDS <histories")
		os.Exit(2)
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	for decoder.More() {
		var h history
		if err := decoder.Decode(&h); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := out.Encode(check(h, time.Duration(seconds)*time.Second)); err != nil {
			panic(err)
		}
	}
}
