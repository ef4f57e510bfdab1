# Ends a lab: its processes, pinned links, namespaces and directory. POSIX sh.
#   guard LAB DIR PIN_DIR   wait on stdin for the owner's word or death, then end the lab
#   end   LAB DIR PIN_DIR   end it now
# Everything is allowed to be gone already: an owner, a sweep and a person may all end the same lab at once.
set -u
trap '' HUP INT QUIT PIPE TERM TSTP

lab=$2 dir=$3 pin_dir=$4

# Only what lives in this lab's own namespaces. The trailing dash keeps lab 1 from matching lab 11.
kill_processes() {
    rounds=0
    while :; do
        pids=
        for file in /run/netns/"$lab"-*; do
            [ -e "$file" ] && pids="$pids $(ip netns pids "${file##*/}" 2>/dev/null | tr '\n' ' ')"
        done
        [ -z "$(echo $pids)" ] && return 0
        kill -KILL $pids 2>/dev/null
        rounds=$((rounds + 1))
        if [ "$rounds" -ge 100 ]; then
            echo "lab $lab: still running after SIGKILL: $pids" >&2
            return 1
        fi
        sleep 0.05
    done
}

remove_files() {
    failed=0
    # bpffs unpins a link or map on unlink; with the last reference it detaches.
    [ ! -e "$pin_dir" ] || rm -rf -- "$pin_dir" || failed=1
    for file in /run/netns/"$lab"-*; do
        [ -e "$file" ] || continue
        # A namespace whose making was cut short is a plain file, which `ip netns del` refuses.
        ip netns del "${file##*/}" 2>/dev/null || rm -f -- "$file" 2>/dev/null
        if [ -e "$file" ]; then
            echo "lab $lab: could not remove $file" >&2
            failed=1
        fi
    done
    rm -rf -- "$dir" || failed=1
    return $failed
}

main() {
    if [ "$1" = guard ]; then
        echo armed
        exec >/dev/null
        word=
        read -r word
        [ "$word" = keep ] && exit 0
        if [ "$word" != end ]; then
            # The owner died. A command that it had just started may not have entered its namespace yet: it would
            # outlive a namespace removed right now.
            kill_processes
            sleep 0.3
        fi
    fi
    kill_processes
    killed=$?
    remove_files && exit $killed
    exit 1
}

main "$@"
