package cache_test

import "runtime"

func goexit() { runtime.Goexit() }
