package httpapi

import "net/http"

// channelHeader says where is told what happens to what an answer is about.
const channelHeader = "Realtime-Channel"

// nameChannel says so, where there is somebody who tells.
func nameChannel(w http.ResponseWriter, name func(id int64) string, id int64) {
	if name != nil {
		w.Header().Set(channelHeader, name(id))
	}
}
