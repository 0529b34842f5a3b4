package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	volumes "sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "trainyard.local/folder"

// scopeParameter is the StorageClass parameter that says who can reach a
// volume: "node" (the default) or "cluster".
const scopeParameter = "scope"

// folders makes volumes that are plain folders on the machine's disk.
//
// A volume of scope "node" belongs to the node that the scheduler chose for
// its first pod, as a disk in that node would: the PersistentVolume carries
// that node's affinity, and no pod elsewhere can mount it. A volume of scope
// "cluster" stands for network storage: every node may mount it. Folders are
// world-writable (with the sticky bit off), so that pods of any user can
// write.
type folders struct {
	root string
}

var _ volumes.Provisioner = folders{}

func (f folders) Provision(_ context.Context, o volumes.ProvisionOptions) (*core.PersistentVolume, volumes.ProvisioningState, error) {
	if mode := o.PVC.Spec.VolumeMode; mode != nil && *mode == core.PersistentVolumeBlock {
		return nil, volumes.ProvisioningFinished, errors.New("volumeMode Block is not offered: a volume here is a folder; use Filesystem")
	}
	if o.PVC.Spec.Selector != nil {
		return nil, volumes.ProvisioningFinished, errors.New("spec.selector is not offered for dynamically made volumes; remove it")
	}
	scope := o.StorageClass.Parameters[scopeParameter]
	var owner string
	switch scope {
	case "", "node":
		if o.SelectedNodeName == "" {
			return nil, volumes.ProvisioningFinished, fmt.Errorf(
				"no node is selected: StorageClass %s needs volumeBindingMode WaitForFirstConsumer for scope node", o.StorageClass.Name)
		}
		if many := firstManyNodeMode(o.PVC.Spec.AccessModes); many != "" {
			return nil, volumes.ProvisioningFinished, fmt.Errorf(
				"access mode %s is not offered by StorageClass %s: its volumes live on one node; use ReadWriteOnce or StorageClass shared",
				many, o.StorageClass.Name)
		}
		owner = o.SelectedNodeName
	case "cluster":
		owner = "shared"
	default:
		return nil, volumes.ProvisioningFinished, fmt.Errorf(
			"StorageClass %s: parameters.%s is %q; it must be \"node\" or \"cluster\"", o.StorageClass.Name, scopeParameter, scope)
	}
	path := filepath.Join(f.root, owner, o.PVName)
	if err := makeWritable(path); err != nil {
		return nil, volumes.ProvisioningFinished, err
	}
	return volumeAt(path, scope != "cluster", o), volumes.ProvisioningFinished, nil
}

// Delete removes the volume's folder. A path outside the root is refused: a
// PersistentVolume object can be edited by hand.
func (f folders) Delete(_ context.Context, pv *core.PersistentVolume) error {
	var path string
	switch {
	case pv.Spec.Local != nil:
		path = pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		path = pv.Spec.HostPath.Path
	default:
		return &volumes.IgnoredError{Reason: "the volume is not a folder"}
	}
	relative, err := filepath.Rel(f.root, filepath.Clean(path))
	if err != nil || relative == "." || strings.HasPrefix(relative, "..") {
		return fmt.Errorf("volume %s: %s is not below %s and is left alone", pv.Name, path, f.root)
	}
	return os.RemoveAll(path)
}

// firstManyNodeMode returns the first access mode that asks for several
// nodes, or "".
func firstManyNodeMode(modes []core.PersistentVolumeAccessMode) core.PersistentVolumeAccessMode {
	for _, mode := range modes {
		if mode == core.ReadWriteMany || mode == core.ReadOnlyMany {
			return mode
		}
	}
	return ""
}

// makeWritable makes the folder and sets its mode apart, since the process's
// umask would take bits away from the mode that mkdir is given.
func makeWritable(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o777)
}

func volumeAt(path string, local bool, o volumes.ProvisionOptions) *core.PersistentVolume {
	pv := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: o.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			MountOptions:                  o.StorageClass.MountOptions,
			Capacity: core.ResourceList{
				core.ResourceStorage: o.PVC.Spec.Resources.Requests[core.ResourceStorage],
			},
		},
	}
	if !local {
		folder := core.HostPathDirectory
		pv.Spec.HostPath = &core.HostPathVolumeSource{Path: path, Type: &folder}
		return pv
	}
	pv.Spec.Local = &core.LocalVolumeSource{Path: path}
	pv.Spec.NodeAffinity = &core.VolumeNodeAffinity{Required: &core.NodeSelector{
		NodeSelectorTerms: []core.NodeSelectorTerm{{
			MatchExpressions: []core.NodeSelectorRequirement{{
				Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{o.SelectedNodeName},
			}},
		}},
	}}
	return pv
}

func runProvisioner() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig to use")
	root := flag.String("root", "", "folder below which volumes are made; an absolute path")
	flag.Parse()
	if *kubeconfig == "" || !filepath.IsAbs(*root) {
		fmt.Fprintln(os.Stderr, "provisioner: --kubeconfig and an absolute --root are needed")
		os.Exit(2)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	controller := volumes.NewProvisionController(
		ctx, kubernetes.NewForConfigOrDie(config), provisionerName,
		folders{root: filepath.Clean(*root)},
		volumes.LeaderElection(false),
	)
	controller.Run(ctx)
}
