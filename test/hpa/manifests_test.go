// Package hpa_test holds what loadline manifests makes to Kubernetes' own code, and to
// KEDA's: their decoding, defaulting and validation, as libraries. It is a module of its
// own, and none of the workspace, so that nobody else's dependencies are chosen by it.
package hpa_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"sigs.k8s.io/yaml"

	"github.com/loadlinehq/loadline/internal/manifests"
)

func configured(scaler, policy string) manifests.Config {
	c := manifests.Defaults()
	c.Image, c.ConnectionLimit, c.Scaler, c.Policy = "registry.example/conduit:1.4.2", 500, scaler, policy
	return c
}

// Every object is what its kind's API server takes: no field that it does not know, and
// none with a value that it refuses.
func TestObjectsAreValid(t *testing.T) {
	for _, scaler := range []string{manifests.ScalerHPA, manifests.ScalerKEDA} {
		for _, policy := range []string{manifests.PolicyLatency, manifests.PolicyDemand} {
			t.Run(scaler+" by "+policy, func(t *testing.T) {
				files, err := manifests.Kubernetes(configured(scaler, policy))
				if err != nil {
					t.Fatal(err)
				}
				kinds := make(map[string]int)
				for _, file := range files {
					for _, document := range documents(t, file.Content) {
						kind, err := accept(t, document)
						if err != nil {
							t.Errorf("%s: %v", file.Name, err)
						}
						kinds[kind]++
					}
				}
				want := map[string]int{"Deployment": 1, "Service": 1, "PodDisruptionBudget": 1}
				if scaler == manifests.ScalerHPA {
					want["HorizontalPodAutoscaler"], want["ConfigMap"] = 1, 1
				} else {
					want["ScaledObject"] = 1
				}
				if fmt.Sprint(kinds) != fmt.Sprint(want) {
					t.Errorf("there are %v, want %v", kinds, want)
				}
			})
		}
	}
}

// The autoscaler is the one that was asked for, in Kubernetes' own units.
func TestAutoscaler(t *testing.T) {
	files, err := manifests.Kubernetes(configured(manifests.ScalerHPA, manifests.PolicyLatency))
	if err != nil {
		t.Fatal(err)
	}
	object, err := decode(content(t, files, "hpa.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	hpa := object.(*autoscaling.HorizontalPodAutoscaler)
	if *hpa.Spec.MinReplicas != 3 || hpa.Spec.MaxReplicas != 50 || *hpa.Spec.Behavior.ScaleDown.StabilizationWindowSeconds != 300 {
		t.Errorf("%+v", hpa.Spec)
	}
	got := make(map[string]int64) // thousandths
	for _, m := range hpa.Spec.Metrics {
		switch {
		case m.Resource != nil:
			got[string(m.Resource.Name)] = int64(*m.Resource.Target.AverageUtilization)
		case m.External != nil && m.External.Target.Value != nil:
			got[m.External.Metric.Name] = m.External.Target.Value.MilliValue()
		case m.External != nil:
			got[m.External.Metric.Name] = m.External.Target.AverageValue.MilliValue()
		}
	}
	want := map[string]int64{"cpu": 65, "loadline_latency_p95_seconds": 250, "loadline_queue_replicas": 1000, "loadline_connection_utilisation": 800}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("metrics are %v, want %v", got, want)
	}
}

// What is sown is found: the checks above would see these mistakes.
func TestMistakesAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, scaler, policy, file string
		old, new, want             string
	}{
		{"a latency with a unit", "hpa", "latency", "hpa.yaml", "value: 250m}", "value: 250ms}", "quantities must match the regular expression"},
		{"fewer at most than at least", "hpa", "latency", "hpa.yaml", "maxReplicas: 50", "maxReplicas: 2", "must be greater than or equal to `minReplicas`"},
		{"a field that is not there", "hpa", "latency", "hpa.yaml", "stabilizationWindowSeconds: 300", "cooldownSeconds: 300", `unknown field "spec.behavior.scaleDown.cooldownSeconds"`},
		{"two targets", "hpa", "demand", "hpa.yaml", "averageValue: \"1\"", "averageValue: \"1\", value: \"1\"", "value"},
		{"a window that is too long", "hpa", "demand", "hpa.yaml", "stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 3601", "must be less than or equal to 3600"},
		{"no instance more and none less", "hpa", "latency", "deployment.yaml", "maxSurge: 25%", "maxSurge: 0", "may not be 0 when `maxSurge` is 0"},
		{"a port that has no name", "hpa", "latency", "deployment.yaml", "port: http}", "port: the_web}", "must"},
		{"a duration where seconds are counted", "hpa", "latency", "deployment.yaml", "terminationGracePeriodSeconds: 35", "terminationGracePeriodSeconds: 20s", "terminationGracePeriodSeconds"},
		{"a fallback that is not there", "keda", "latency", "scaledobject.yaml", "behavior: currentReplicasIfHigher", "behavior: hold", "Unsupported value"},
		{"a field of another version", "keda", "demand", "scaledobject.yaml", "pollingInterval: 15", "pollInterval: 15", "pollInterval"},
		{"a number where KEDA wants a text", "keda", "demand", "scaledobject.yaml", `threshold: "1"`, `threshold: 1`, "threshold"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files, err := manifests.Kubernetes(configured(test.scaler, test.policy))
			if err != nil {
				t.Fatal(err)
			}
			sound := content(t, files, test.file)
			broken := bytes.Replace(sound, []byte(test.old), []byte(test.new), 1)
			if bytes.Equal(sound, broken) {
				t.Fatalf("%s has no %q", test.file, test.old)
			}
			if _, err := accept(t, broken); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A bare 250 is valid to Kubernetes, and 250 seconds: it would never scale. Nobody else
// says so, which is why the configuration takes a duration.
func TestBareNumberIsAccepted(t *testing.T) {
	files, err := manifests.Kubernetes(configured(manifests.ScalerHPA, manifests.PolicyLatency))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := accept(t, bytes.Replace(content(t, files, "hpa.yaml"), []byte("value: 250m}"), []byte("value: 250}"), 1)); err != nil {
		t.Errorf("Kubernetes refuses it now, and the guide says that it does not: %v", err)
	}
}

// Fifty instances with twenty connections each are refused before they are anything to Kubernetes.
func TestConnectionsAreRefused(t *testing.T) {
	c := configured(manifests.ScalerHPA, manifests.PolicyLatency)
	c.Pool, c.ConnectionLimit = 20, 200
	if files, err := manifests.Kubernetes(c); err == nil || files != nil || !strings.Contains(err.Error(), "50 instances and 13 more while a release rolls") {
		t.Errorf("got %v", err)
	}
}

func content(t *testing.T, files []manifests.File, name string) []byte {
	t.Helper()
	for _, f := range files {
		if f.Name == name {
			return f.Content
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}

func documents(t *testing.T, content []byte) [][]byte {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document)
	}
}

// accept decodes, defaults and validates an object as its API server does, and returns
// its kind.
func accept(t *testing.T, document []byte) (string, error) {
	t.Helper()
	var of struct{ Kind string }
	if err := yaml.Unmarshal(document, &of); err != nil {
		return "", err
	}
	if of.Kind == "ScaledObject" {
		return of.Kind, acceptScaledObject(t, document)
	}
	object, err := decode(document)
	if err != nil {
		return of.Kind, err
	}
	var errs field.ErrorList
	switch o := object.(type) {
	case *apps.Deployment:
		errs = appsvalidation.ValidateDeployment(o, corevalidation.PodValidationOptions{})
	case *core.Service:
		errs = corevalidation.ValidateServiceCreate(o)
	case *core.ConfigMap:
		errs = corevalidation.ValidateConfigMap(o)
	case *policy.PodDisruptionBudget:
		errs = policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	case *autoscaling.HorizontalPodAutoscaler:
		errs = autoscalingvalidation.ValidateHorizontalPodAutoscaler(o, autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{MinReplicasLowerBound: 1})
	default:
		return of.Kind, fmt.Errorf("no validation is known here of %T", object)
	}
	return of.Kind, errs.ToAggregate()
}

// decode is strict, and applies the defaults.
func decode(document []byte) (runtime.Object, error) {
	codecs := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)
	object, _, err := codecs.UniversalDecoder().Decode(document, nil, nil)
	return object, err
}

// acceptScaledObject uses KEDA's types, its own checks, and the schema of its CRD, which is what an
// API server has of it.
func acceptScaledObject(t *testing.T, document []byte) error {
	t.Helper()
	var so keda.ScaledObject
	if err := yaml.UnmarshalStrict(document, &so); err != nil {
		return err
	}
	// With all names that it does not know, and without the status, which KEDA writes.
	var raw map[string]any
	if err := yaml.Unmarshal(document, &raw); err != nil {
		return err
	}
	structural, validator := scaledObjectSchema(t)
	if unknown := pruning.PruneWithOptions(raw, structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(unknown) > 0 {
		return fmt.Errorf("the CRD has no %v", unknown)
	}
	errs := crdvalidation.ValidateCustomResource(nil, raw, validator).ToAggregate()
	return errors.Join(errs, keda.CheckFallbackValid(&so), keda.CheckReplicaCountBoundsAreValid(&so), keda.ValidateTriggers(so.Spec.Triggers))
}

func scaledObjectSchema(t *testing.T) (*schema.Structural, crdvalidation.SchemaValidator) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "config", "crd", "bases", "keda.sh_scaledobjects.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		t.Fatal(err)
	}
	var props apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil); err != nil {
		t.Fatal(err)
	}
	structural, err := schema.NewStructural(&props)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := crdvalidation.NewSchemaValidator(&props)
	if err != nil {
		t.Fatal(err)
	}
	return structural, validator
}
