//! What stands behind each verb's help: commands as people type them, and what they are for.

pub(super) const EXAMPLES: &str = "\
Examples:
  balancer import nginx /etc/nginx/nginx.conf    what would it be here?
  balancer check --config ./balancer.toml     is this configuration right?
  balancer doctor                             is this machine right?
  balancer run                                start the daemon
  balancer status                             who is active, and why
  balancer top                                the same, live, with keys
  balancer flows --client 192.0.2.7           where a client's connections go
  balancer trace --client 192.0.2.7           and each of its packets
  balancer why passwords                      what led to that
  balancer events --follow                    what happens
  balancer failover passwords                 move the pool to the next backend
  balancer failback passwords                 and back to the first

Exit codes: 0 ok, 1 failed or refused, 2 usage, 3 configuration, 4 no daemon, 5 permission,
6 `status --exit-code`: degraded, 7 conflict";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  balancer check                              would the daemon take it?
  balancer check --explain                    and what would it do?
  balancer check --no-resolve --config new.toml    on another machine than the gateway
  balancer check -o json | jq -r '.findings[] | .severity + \" in line \" + (.line | tostring) + \": \" + .message'
  balancer schema > balancer.schema.json      for an editor that knows JSON schemas";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  balancer status                             all pools
  balancer status --watch                     again every second, in place
  balancer status passwords --exit-code       for a monitoring check: 0 good, 6 degraded
  balancer status -o json | jq -r '.pools[] | .name + \" \" + .active'";

pub(super) const STATS_EXAMPLES: &str = "\
Examples:
  balancer stats                              totals
  balancer stats --watch --interval 5s        and what they come to in a second
  balancer stats -o json | jq '.drops | with_entries(select(.value > 0))'";

pub(super) const FLOWS_EXAMPLES: &str = "\
Examples:
  balancer flows                              all of them
  balancer flows --client 192.0.2.7           where a client's connections go
  balancer flows --pool passwords --backend server1 --limit 20    some of this backend's
  balancer flows -o json | jq -r '.flows[] | select(.idle_s > 3600) | .client'";

pub(super) const EVENTS_EXAMPLES: &str = "\
Examples:
  balancer events                             the newest 100
  balancer events --pool passwords --limit 10    the newest of this pool
  balancer events --follow --limit 0          only what happens from now on
  balancer events --follow -o json | jq -c 'select(.event == \"transition\")'";

pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  balancer trace --client 192.0.2.7           what becomes of a client's packets
  balancer trace --service passwords/web      of all packets of a service
  balancer trace -o json | jq -c 'select(.verdict == \"dropped\") | [.from, .reason]'";

pub(super) const WHY_EXAMPLES: &str = "\
Examples:
  balancer why passwords
  balancer why passwords -o json | jq -r '.chain[0].evidence'";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  balancer doctor                             before the first start, and when clients complain
  balancer doctor -o json | jq -r '.findings[] | select(.ok | not) | .severity + \" \" + .id + \": \" + .fix'";

pub(super) const FAILOVER_EXAMPLES: &str = "\
Examples:
  balancer failover passwords                 to the next eligible backend
  balancer failover passwords --to server2    to this one, if it is eligible
  balancer failover passwords --to server2 --force    to this one, whatever the probes say
  balancer failover passwords --reset         and end the connections of the one before";

pub(super) const SCHEMA_EXAMPLES: &str = "\
Examples:
  balancer schema > balancer.schema.json      of the configuration, for an editor
  balancer schema status                      of `status -o json`
  balancer schema event                       of each line of `events --follow -o json`";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  balancer completions bash > /etc/bash_completion.d/balancer
  balancer completions zsh > /usr/local/share/zsh/site-functions/_balancer
  balancer completions fish > ~/.config/fish/completions/balancer.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  balancer man | man -l -                     the page of the program
  balancer man failover | man -l -            of a verb
  balancer man --dir /usr/local/share/man/man1    all of them, to stay";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  balancer drain passwords server1            before an update; then:
  balancer status passwords                   how many flows are left
  balancer drain passwords server1 --deadline 30s    not longer than that
  balancer ready passwords server1            and back into use";

pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  balancer check && balancer reload           read the file once more
  balancer reload --confirm 60s               and go back in a minute, unless this comes before:
  balancer reload --confirmed";
