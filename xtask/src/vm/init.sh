#!/bin/sh
# The first process of a virtual machine: runs the test programs, says how each ended, and powers off.
export PATH=/bin HOME=/ RUST_TEST_THREADS=2
# The programs' own number of random packets takes minutes where each instruction is emulated.
export BALANCER_PACKET_RUNS=200

# A tool that the machine has from outside stays what it is.
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
while read -r module; do
    insmod "/modules/$module.ko" || echo "vm: failed to load $module"
done </modules/order
ip link set lo up

echo "vm: booted $(uname -r)"
while read -r program; do
    echo "vm: start $program"
    "/tests/$program"
    echo "vm: end $program $?"
done </tests/order
echo "vm: done"
poweroff -f
