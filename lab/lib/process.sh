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
# The namespace's number is reused once it is gone, so a process counts only while a recorded one vouches for the number,
# or when its environment names this very directory.
lab_pids() {
  local recorded="" name pid vouched="" process
  [ -f "$LAB/netns" ] && recorded=$(<"$LAB/netns")
  [ -n "$recorded" ] || return 0
  for name in "$LAB"/pid/*; do
    pid=$(pid_of "${name##*/}") && [ "$(readlink "/proc/$pid/ns/net" 2>/dev/null)" = "$recorded" ] && { vouched=1; break; }
  done
  for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$recorded" ] || continue
    [ -n "$vouched" ] || tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "LAB=$LAB" || continue
    printf '%s %s\n' "$pid" "$(start_time "$pid")"
  done
}

end_all() { # every process of the laboratory; several passes, because what is being ended may fork
  local pass pid started list
  for ((pass = 0; pass < 100; pass++)); do
    list=$(lab_pids)
    [ -n "$list" ] || return 0
    while read -r pid started; do
      [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && kill -9 "$pid" 2>/dev/null
    done <<<"$list"
    sleep 0.01
  done
  warn "some processes of the laboratory do not end: $(lab_pids | cut -d' ' -f1 | paste -sd' ')"
  return 1
}
