#!/bin/bash
# Runs a command on what looks like a machine of its own: own network, mounts, processes and cgroups, the same disk.
# So a second cluster can come up and go down beside the one that is in use. Needs root and cgroup v1.
# Usage: sandbox.sh NAME COMMAND...
set -euo pipefail
if [ "$1" != --inside ]; then
    name=$1
    shift
    hierarchies=$(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts)
    # shellcheck disable=SC2064
    trap "for h in ${hierarchies//$'\n'/ }; do find \$h/$name -depth -type d -exec rmdir {} + ; done" EXIT
    (
        for hierarchy in $hierarchies; do
            mkdir -p "$hierarchy/$name"
            for file in cpuset.cpus cpuset.mems; do
                if [ -e "$hierarchy/$name/$file" ]; then cat "$hierarchy/$file" > "$hierarchy/$name/$file"; fi
            done
            echo "$BASHPID" > "$hierarchy/$name/cgroup.procs"
        done
        exec unshare --cgroup --mount --net --pid --ipc --fork --kill-child --mount-proc --propagation private \
            "$0" --inside "$@"
    )
    exit
fi
shift
mounts=$(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2 " " $3 " " $4}' /proc/mounts)
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r place kind options; do
    mkdir "$place"
    case $kind,$options in
        cgroup2,*) mount -t cgroup2 cgroup2 "$place" ;;
        *name=systemd*) mount -t cgroup -o none,name=systemd cgroup "$place" ;;
        *) mount -t cgroup -o "${place##*/}" cgroup "$place" ;;
    esac
done <<< "$mounts"
mount -t tmpfs tmpfs /var/lib/containers
# Removing a folder takes mounts on it away in every namespace: the nodes of the cluster in use have theirs here.
for place in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd; do
    if [ -d "$place" ]; then mount -t tmpfs tmpfs "$place"; fi
done
ip link set lo up
"$@"
