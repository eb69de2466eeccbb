package manifests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The part of Grafana's dashboards that is used here; it fills in the rest.
type dashboard struct {
	Description   string      `json:"description"`
	UID           string      `json:"uid"`
	Title         string      `json:"title"`
	Tags          []string    `json:"tags"`
	SchemaVersion int         `json:"schemaVersion"`
	Editable      bool        `json:"editable"`
	Refresh       string      `json:"refresh"`
	Time          span        `json:"time"`
	GraphTooltip  int         `json:"graphTooltip"`
	Templating    templating  `json:"templating"`
	Annotations   annotations `json:"annotations"`
	Panels        []panel     `json:"panels"`
}

type span struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []choice `json:"list"`
}

// choice has whoever looks choose the Prometheus.
type choice struct {
	Name  string `json:"name"`
	Label string `json:"label"`
	Type  string `json:"type"`
	Query string `json:"query"`
}

type annotations struct {
	List []annotation `json:"list"`
}

type annotation struct {
	Name        string     `json:"name"`
	Datasource  datasource `json:"datasource"`
	Enable      bool       `json:"enable"`
	IconColor   string     `json:"iconColor"`
	Expr        string     `json:"expr"`
	Step        string     `json:"step"`
	TitleFormat string     `json:"titleFormat"`
	TextFormat  string     `json:"textFormat"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	GridPos     grid        `json:"gridPos"`
	Datasource  datasource  `json:"datasource"`
	FieldConfig fieldConfig `json:"fieldConfig"`
	Targets     []target    `json:"targets"`
}

type grid struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type fieldConfig struct {
	Defaults  fieldDefaults `json:"defaults"`
	Overrides []string      `json:"overrides"`
}

type fieldDefaults struct {
	Unit string   `json:"unit"`
	Min  *float64 `json:"min,omitempty"`
}

type target struct {
	RefID        string     `json:"refId"`
	Datasource   datasource `json:"datasource"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
}

var prometheus = datasource{"prometheus", "${datasource}"}

// Units as Grafana names them.
const (
	perSecond = "reqps"
	inSeconds = "s"
	inBytes   = "bytes"
	share     = "percentunit"
	plain     = "short"
)

// Grafana returns the dashboards: requests by route, resources, what tells a spike of
// traffic from a slow release, and, where there are gateways, realtime.
func Grafana(c Config) ([]File, error) {
	if err := c.Complete(); err != nil {
		return nil, err
	}
	r := c.ruled()
	type board struct {
		file, title string
		panels      []panel
	}
	boards := []board{
		{"requests.json", "requests", r.requestPanels()},
		{"resources.json", "resources", r.resourcePanels()},
		{"causes.json", "spike or release", r.causePanels()},
	}
	if c.Realtime != "" {
		boards = append(boards, board{"realtime.json", "realtime", r.realtimePanels()})
	}
	var files []File
	for _, d := range boards {
		files = append(files, File{d.file, r.dashboard(d.file, d.title, d.panels)})
	}
	return files, nil
}

func (r ruled) dashboard(file, title string, panels []panel) []byte {
	const perRow, width, height = 2, 12, 8
	for i := range panels {
		panels[i].ID = i + 1
		panels[i].GridPos = grid{height, width, width * (i % perRow), height * (i / perRow)}
	}
	d := dashboard{
		Description: "Made by loadline manifests grafana from section deploy of loadline.yaml: change it there, and make it again.",
		UID:         fmt.Sprintf("%.25s-%s", r.Name, strings.TrimSuffix(file, ".json")), // it has at most 40 characters
		Title:       r.Name + ": " + title, Tags: []string{"loadline", r.Name}, SchemaVersion: 39, Editable: true, Refresh: "15s",
		Time: span{"now-3h", "now"}, GraphTooltip: 1, // one crosshair over all panels
		Templating:  templating{[]choice{{"datasource", "Prometheus", "datasource", "prometheus"}}},
		Annotations: annotations{r.marks()},
		Panels:      panels,
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		panic(err) // it has nothing that JSON cannot
	}
	return out.Bytes()
}

// marks are of releases and of scaling, on each dashboard. A release is a version that was
// not there two minutes before: when instances have started would mark each that scaling
// starts.
func (r ruled) marks() []annotation {
	versions := "count by (service_version) (" + r.Of("loadline_deploy_time_seconds") + "%s)"
	now := r.Of("loadline:replicas:now")
	return []annotation{
		{
			"Releases", prometheus, true, "purple",
			fmt.Sprintf(versions, "") + " unless on (service_version) " + fmt.Sprintf(versions, " offset 2m"), "60s",
			"release {{service_version}}", "since here {{service_version}} answers",
		},
		{"Scaled out", prometheus, true, "green", now + " - " + now + " offset 1m > 0", "60s", "scaled out", "more instances than a minute before"},
		{"Scaled in", prometheus, true, "orange", now + " - " + now + " offset 1m < 0", "60s", "scaled in", "fewer instances than a minute before"},
	}
}

// graph is a panel of lines; pairs are a legend and its expression.
func graph(title, unit, description string, pairs ...string) panel {
	zero := 0.0
	p := panel{
		Type: "timeseries", Title: title, Description: description, Datasource: prometheus,
		FieldConfig: fieldConfig{fieldDefaults{unit, &zero}, []string{}},
	}
	for i := 0; i < len(pairs); i += 2 {
		p.Targets = append(p.Targets, target{string(rune('A' + i/2)), prometheus, pairs[i+1], pairs[i]})
	}
	return p
}
