// render prints what a cluster would get, as one JSON object: the objects that kustomize makes of each folder, those of
// each file, and those that Helm makes of a chart with our values; and every field that their types do not know.
//
//	render [-chart FOLDER_OR_ARCHIVE -values FILE -release NAME -namespace NAME] [FOLDER | FILE.yaml]...
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

type rendered struct {
	Chart   string            `json:"chart"`   // name and version, empty without one
	Objects []json.RawMessage `json:"objects"` // folder by folder, file by file, and the chart's last
	Foreign []string          `json:"foreign"` // kinds that Kubernetes itself does not have
	Wrong   []string          `json:"wrong"`   // what a strict decoder refuses, with the object's kind
}

// Unknown and repeated fields are errors, as they are for `kubectl apply --validate=strict`.
var strict = serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
	serializer.SerializerOptions{Yaml: true, Strict: true})

func (r *rendered) add(source string, text io.Reader) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(text))
	for {
		document, err := documents.Read()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatalf("%s: %v", source, err)
		}
		object, err := yaml.YAMLToJSON(document)
		if err != nil {
			log.Fatalf("%s: %v", source, err)
		}
		if string(object) == "null" {
			continue
		}
		r.Objects = append(r.Objects, object)
		_, kind, err := strict.Decode(document, nil, nil)
		switch {
		case runtime.IsNotRegisteredError(err):
			r.Foreign = append(r.Foreign, kind.GroupVersion().String()+"/"+kind.Kind)
		case err != nil:
			r.Wrong = append(r.Wrong, fmt.Sprintf("%s: %s: %v", source, kind, err))
		}
	}
}

func (r *rendered) kustomize(folder string) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		log.Fatalf("kustomize build %s: %v", folder, err)
	}
	text, err := made.AsYaml()
	if err != nil {
		log.Fatalf("kustomize build %s: %v", folder, err)
	}
	r.add(folder, bytes.NewReader(text))
}

// As `helm template`: the values have to fit the chart's schema.
func (r *rendered) helm(path, valuesFile string, release chartutil.ReleaseOptions) {
	chart, err := loader.Load(path)
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	values, err := chartutil.ReadValuesFile(valuesFile)
	if err != nil {
		log.Fatalf("%s: %v", valuesFile, err)
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	given, err := chartutil.ToRenderValues(chart, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		log.Fatalf("%s: %v", valuesFile, err)
	}
	made, err := engine.Render(chart, given)
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	r.Chart = chart.Metadata.Name + " " + chart.Metadata.Version
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if filepath.Ext(name) == ".yaml" {
			r.add(name, strings.NewReader(made[name]))
		}
	}
}

func main() {
	log.SetFlags(0)
	path := flag.String("chart", "", "render this chart, a folder or an archive, too")
	values := flag.String("values", "", "with the values of this file")
	release := flag.String("release", "", "under this name")
	namespace := flag.String("namespace", "", "in this namespace")
	flag.Parse()
	result := rendered{Objects: []json.RawMessage{}, Foreign: []string{}, Wrong: []string{}}
	for _, source := range flag.Args() {
		if filepath.Ext(source) != ".yaml" {
			result.kustomize(source)
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			log.Fatal(err)
		}
		result.add(source, bytes.NewReader(text))
	}
	if *path != "" {
		result.helm(*path, *values, chartutil.ReleaseOptions{Name: *release, Namespace: *namespace, IsInstall: true})
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
