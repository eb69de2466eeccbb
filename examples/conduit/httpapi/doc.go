// Package httpapi serves Conduit over HTTP: the contract of the RealWorld
// project (contract/openapi.yml) on net/http's ServeMux.
//
// A handler reads the request, asks the Store once or twice, and writes one
// JSON object. What is common to all lies around the handlers: who the viewer
// is (viewer.go), what an error looks like (errors.go), and what every request
// gets (middleware.go).
//
// An article is fetched without regard to who looks at it; the viewer's marks
// (favorited, following) come from one further query for the whole page.
//
// The package does not limit rates, and does not terminate TLS.
package httpapi
