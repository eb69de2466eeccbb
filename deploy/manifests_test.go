package deploy_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/internal/manifests"
)

// The image that is made here starts with the Deployment's defaults: Kubernetes' args replace CMD, and there is no
// entrypoint that they would be given to.
func TestDefaultArgsStart(t *testing.T) {
	t.Parallel()
	dockerfile := read(t, "Dockerfile")
	if regexp.MustCompile(`(?m)^ENTRYPOINT`).MatchString(dockerfile) {
		t.Fatal("the image has an entrypoint, and deploy.args are its arguments")
	}
	copied := regexp.MustCompile(`(?m)^COPY --from=build (.*) /usr/local/bin/$`).FindStringSubmatch(dockerfile)
	command := regexp.MustCompile(`(?m)^CMD \["(\w+)"`).FindStringSubmatch(dockerfile)
	if copied == nil || command == nil {
		t.Fatal("no programs are in the image, or it has no command")
	}
	runs := command[1]
	if args := manifests.Defaults().Args; len(args) > 0 {
		runs = args[0]
	}
	if !slices.Contains(strings.Fields(copied[1]), "/out/"+runs) {
		t.Errorf("a pod executes %s, and the image has %s", runs, copied[1])
	}
}
