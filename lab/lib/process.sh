# shellcheck shell=bash
# The laboratory's processes. A pid alone may have been given to somebody else since: its start time is kept with it.

start_time() { # of process $1; empty when it does not exist
  local stat
  read -r stat <"/proc/$1/stat" || return 0
  # The command's name may hold spaces and brackets; the fields after the last ')' are plain.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$1" = Z ] || printf '%s' "${20}"
} 2>/dev/null

# start NAME CMD...: in the background, output to $LAB/log/NAME.log
start() {
  local name=$1 pid; shift
  setsid "$@" >"$LAB/log/$name.log" 2>&1 </dev/null &
  pid=$!
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$LAB/pid/$name.new"
  mv "$LAB/pid/$name.new" "$LAB/pid/$name"
}

# Rights over the namespace are for setting it up; the services shall meet the same refusals as in production.
start_service() {
  local name=$1; shift
  if [ -n "$AS_ROOT" ]; then start "$name" "$@"; else start "$name" setpriv --ambient-caps=-all --inh-caps=-all "$@"; fi
}

# pid_of NAME: the pid, if that very process is alive
pid_of() {
  local pid started
  read -r pid started <"$LAB/pid/$1" || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && printf '%s' "$pid"
} 2>/dev/null
alive() { pid_of "$1" >/dev/null; }

stop() { # stop NAME: politely, then not
  local pid i
  if pid=$(pid_of "$1") && [ "$pid" != $$ ]; then
    kill "$pid" 2>/dev/null; kill -CONT "$pid" 2>/dev/null
    for ((i = 0; i < 60; i++)); do pid_of "$1" >/dev/null || break; sleep 0.03; done
    pid_of "$1" >/dev/null && kill -9 "$pid" 2>/dev/null
  fi
  rm -f "$LAB/pid/$1"
}

wait_for_port() { # wait_for_port NAME ADDRESS PORT
  local i
  for ((i = 0; i < 600; i++)); do
    (exec 3<>"/dev/tcp/$2/$3") 2>/dev/null && return 0
    alive "$1" || { tail -n 20 "$LAB/log/$1.log" >&2; die "$1 ended while starting; its log is $LAB/log/$1.log"; }
    sleep 0.025
  done
  tail -n 20 "$LAB/log/$1.log" >&2
  die "$1 did not open $2:$3 within 15 s; its log is $LAB/log/$1.log"
}

# Everything in the laboratory's network namespace is the laboratory's: services, what they forked, what `lab run` started.
processes_in() { # pids in the namespace $1 (as /proc/PID/ns/net shows it)
  local link pattern=${1/\[/\\[}
  find /proc/[0-9]*/ns/net -maxdepth 0 -lname "${pattern/\]/\\]}" 2>/dev/null | while read -r link; do link=${link#/proc/}; echo "${link%%/*}"; done
}

# The number of a namespace is given away again once it is gone. Somebody who is surely ours must vouch for it: a recorded
# process, or one whose environment names this very directory.
vouching_process() {
  local file pid
  for file in "$LAB"/pid/*; do
    pid=$(pid_of "${file##*/}") && [ "$(readlink "/proc/$pid/ns/net")" = "$1" ] && { echo "$pid"; return 0; }
  done
  for pid in $(processes_in "$1"); do
    tr '\0' '\n' <"/proc/$pid/environ" | grep -qxF "LAB=$LAB" && { echo "$pid"; return 0; }
  done
  return 1
} 2>/dev/null

end_all() { # several passes, because what is being ended may fork
  local namespace pass pid list="" pin
  local -A ended=()
  [ -f "$LAB/netns" ] && namespace=$(<"$LAB/netns") && [ -n "$namespace" ] || return 0
  pid=$(vouching_process "$namespace") || return 0
  # Held open, the namespace keeps its number until we are through.
  { exec {pin}<"/proc/$pid/ns/net"; } 2>/dev/null || return 0
  for ((pass = 0; pass < 200; pass++)); do
    list=$(processes_in "$namespace")
    for pid in $list; do ended[$pid]=$(start_time "$pid"); kill -9 "$pid" 2>/dev/null; done
    # An ending process has left its namespace before it is gone.
    for pid in "${!ended[@]}"; do
      if [ -n "${ended[$pid]}" ] && [ "$(start_time "$pid")" = "${ended[$pid]}" ]; then list="$list $pid"; else unset "ended[$pid]"; fi
    done
    [ -n "$list" ] || break
    sleep 0.01
  done
  exec {pin}<&-
  [ -z "$list" ] || { warn "these processes of the laboratory do not end: $list"; return 1; }
}
