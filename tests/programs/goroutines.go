// A program without a C library: goroutines PATH.
//
// Goroutines join the network and leave it, many at a time, while the runtime interrupts its threads with signals. Then it
// says how many calls failed, joins once more, and says what it hears.
package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	afIPN   = 34
	workers = 8
	rounds  = 25
)

// join returns a socket that is connected to the network.
func join(path string) (uintptr, syscall.Errno) {
	var address [110]byte
	address[0] = afIPN
	copy(address[2:], path)
	net, _, failed := syscall.Syscall(syscall.SYS_SOCKET, afIPN, syscall.SOCK_RAW, 0)
	if failed == 0 {
		_, _, failed = syscall.Syscall(syscall.SYS_CONNECT, net, uintptr(unsafe.Pointer(&address)), uintptr(len(address)))
	}
	return net, failed
}

func main() {
	var failures, done int32
	var all sync.WaitGroup
	for range make([]int, 2) { // work that has to be interrupted for others
		go func() {
			for atomic.LoadInt32(&done) == 0 {
			}
		}()
	}
	for range make([]int, workers) {
		all.Add(1)
		go func() {
			defer all.Done()
			for range make([]int, rounds) {
				net, failed := join(os.Args[1])
				if sent, err := syscall.Write(int(net), []byte("from go")); failed != 0 || sent != 7 || err != nil {
					fmt.Fprintln(os.Stderr, failed, sent, err)
					atomic.AddInt32(&failures, 1)
				}
				syscall.Close(int(net))
			}
		}()
	}
	all.Wait()
	atomic.StoreInt32(&done, 1)
	net, failed := join(os.Args[1])
	fmt.Println(failures, int(failed))
	data := make([]byte, 100)
	size, err := os.NewFile(net, "network").Read(data)
	fmt.Println(string(data[:size]), err)
}
