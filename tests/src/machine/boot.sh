# Becomes a machine: a copy of this one's files of which only changes are kept, in memory, and systemd as process 1.
#   boot.sh NAME DIR    in a mount and a PID namespace of its own, as process 1 of the latter
# DIR is shared with those outside; files below DIR/root are put into the machine. POSIX sh.
set -eu
name=$1 dir=$2

mount --make-rprivate /
mkdir "$dir/layers"
mount -t tmpfs -o mode=0755 tmpfs "$dir/layers"
cd "$dir/layers"
mkdir upper work root cgroup
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cp -a "$dir/root/." root/

# Tells its root from this machine's.
touch root/etc/balancer-machine

# A cgroup of its own, to which processes can be added beside those that systemd makes.
mount -t cgroup2 cgroup2 cgroup
mkdir "cgroup/$name"
echo 0 > "cgroup/$name/cgroup.procs"

# Nothing of this machine starts in that one: only targets to hang a unit on.
units=root/lib/systemd/system
rm -rf "$units" root/etc/systemd/system root/lib/systemd/system-generators
mkdir -p "$units" root/etc/systemd/system
for target in sysinit basic shutdown network-online nss-lookup multi-user; do
    echo '[Unit]' > "$units/$target.target"
done
if [ -d "$dir/units" ]; then cp -R "$dir/units/." "$units/"; fi

mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount -t bpf -o mode=0700 bpf root/sys/fs/bpf
mount --rbind /dev root/dev
touch "$dir/console"
mount --bind "$dir/console" root/dev/console
mount -t tmpfs -o mode=0755 tmpfs root/run
mkdir -p root/run/lock "root$dir"
mount --bind "$dir" "root$dir"
export container=balancer-tests
exec unshare --cgroup sh -c '
    set -eu
    mount -t cgroup2 cgroup2 root/sys/fs/cgroup
    cd root
    mkdir -p .old
    pivot_root . .old
    umount -l .old
    exec chroot . /lib/systemd/systemd --system --unit=multi-user.target --log-target=console
'
