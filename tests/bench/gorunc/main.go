// go-runc, driven as tests/bench/worker.py drives this project: a request a line on stdin, an answer a line on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
)

type place struct {
	Runtime, Root, Bundle, Job, ID string
}

type request struct {
	Op     string
	Times  int
	AtOnce int `json:"at_once"`
}

type answer struct {
	Seconds  []float64 `json:"seconds"`
	First    []float64 `json:"first"`
	Elapsed  float64   `json:"elapsed"`
	CPU      float64   `json:"cpu"`
	Children float64   `json:"children"`
}

var ctx = context.Background()

// A whole life as a user of go-runc writes it: there is no other way to be rid of a running container.
func life(client *runc.Runc, here place, number int) error {
	null, err := runc.NewNullIO()
	if err != nil {
		return err
	}
	defer null.Close()
	id := fmt.Sprintf("%s-go-%d", here.ID, number)
	if err := client.Create(ctx, id, here.Bundle, &runc.CreateOpts{IO: null}); err != nil {
		return err
	}
	if err := client.Start(ctx, id); err != nil {
		return err
	}
	return client.Delete(ctx, id, &runc.DeleteOpts{Force: true})
}

// A process in the live container, its output captured.
func run(client *runc.Runc, here place) error {
	pipes, err := runc.NewPipeIO(os.Getuid(), os.Getgid(), func(o *runc.IOOption) { o.OpenStdin = false })
	if err != nil {
		return err
	}
	defer pipes.Close()
	var reading sync.WaitGroup
	for _, end := range []io.ReadCloser{pipes.Stdout(), pipes.Stderr()} {
		reading.Add(1)
		go func() {
			defer reading.Done()
			io.ReadAll(end)
		}()
	}
	process := specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true}
	err = client.Exec(ctx, here.ID, process, &runc.ExecOpts{IO: pipes})
	reading.Wait()
	return err
}

// A program in a container of its own, its output captured; gives the time of the first byte.
func job(client *runc.Runc, here place, number int) (time.Time, error) {
	var first time.Time
	pipes, err := runc.NewPipeIO(os.Getuid(), os.Getgid(), func(o *runc.IOOption) { o.OpenStdin = false })
	if err != nil {
		return first, err
	}
	var reading sync.WaitGroup
	for _, end := range []io.ReadCloser{pipes.Stdout(), pipes.Stderr()} {
		reading.Add(1)
		go func() {
			defer reading.Done()
			data := make([]byte, 4096)
			for {
				count, err := end.Read(data)
				if count > 0 {
					first = time.Now()
				}
				if err != nil {
					return
				}
			}
		}()
	}
	_, err = client.Run(ctx, fmt.Sprintf("%s-go-job-%d", here.ID, number), here.Job, &runc.CreateOpts{IO: pipes})
	pipes.Close()
	reading.Wait()
	return first, err
}

func cpu(whose int) float64 {
	var usage syscall.Rusage
	syscall.Getrusage(whose, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func main() {
	var here place
	if err := json.Unmarshal([]byte(os.Args[1]), &here); err != nil {
		panic(err)
	}
	client := &runc.Runc{Command: here.Runtime, Root: here.Root}
	var first []time.Time
	ops := map[string]func(number int) error{
		"version": func(int) error { _, err := client.Version(ctx); return err },
		"state":   func(int) error { _, err := client.State(ctx, here.ID); return err },
		"life":    func(number int) error { return life(client, here, number) },
		"run":     func(int) error { return run(client, here) },
		"job":     func(number int) (err error) { first[number], err = job(client, here, number); return },
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		given := answer{Seconds: make([]float64, asked.Times), First: make([]float64, asked.Times)}
		first = make([]time.Time, asked.Times)
		numbers := make(chan int)
		var working sync.WaitGroup
		childrenBefore := cpu(syscall.RUSAGE_CHILDREN)
		cpuBefore, began := cpu(syscall.RUSAGE_SELF), time.Now()
		for range asked.AtOnce {
			working.Add(1)
			go func() {
				defer working.Done()
				for number := range numbers {
					callBegan := time.Now()
					if err := ops[asked.Op](number); err != nil {
						panic(fmt.Errorf("%s: %w", asked.Op, err))
					}
					given.Seconds[number] = time.Since(callBegan).Seconds()
					given.First[number] = first[number].Sub(callBegan).Seconds()
				}
			}()
		}
		for number := range asked.Times {
			numbers <- number
		}
		close(numbers)
		working.Wait()
		given.Elapsed, given.CPU = time.Since(began).Seconds(), cpu(syscall.RUSAGE_SELF)-cpuBefore
		given.Children = cpu(syscall.RUSAGE_CHILDREN) - childrenBefore
		line, _ := json.Marshal(given)
		fmt.Println(string(line))
	}
}
