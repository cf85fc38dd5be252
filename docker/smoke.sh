#!/usr/bin/env bash
# docker/smoke.sh ENGINE: tries the images that scripts/image has built. ENGINE is docker or podman.
#
# The control plane, HMS-GOV, Auth-SVC, and the sidecars of Auth-SVC and Claims-SVC, each a container with a
# read-only root, no capability and no new privilege, all in one network namespace that has nothing but a
# loopback interface: nothing of the host's network is touched. The seed's call goes through both sidecars, with
# mutual TLS between them; then each is stopped, and must end with 0 after it has drained.
# What it makes has names that begin with hms-smoke-, and is removed at the end.
set -euo pipefail
engine=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
prefix=hms-smoke-$$
hardened=(--read-only --cap-drop all --security-opt no-new-privileges --memory 256m --pids-limit 100)
# It wants systemd's timers for HEALTHCHECK, and complains where there are none; `healthy` below does without.
run=("$engine")
[ "$engine" != podman ] || run+=(--log-level fatal)
containers=()
volumes=()
work=$(mktemp -d)

say() { printf 'image: %s\n' "$*" >&2; }

clean() {
  local code=$? name
  trap - EXIT
  if [ "$code" -ne 0 ]; then
    for name in "${containers[@]}"; do
      printf -- '---- %s\n' "$name" >&2
      "${run[@]}" logs "$name" 2>&1 | tail -30 >&2 || true
    done
  fi
  wait || true # A call that still runs would keep its namespace.
  # In reverse: the first one owns the namespace.
  for ((i = ${#containers[@]} - 1; i >= 0; i--)); do
    "${run[@]}" kill "${containers[$i]}" >/dev/null 2>&1 || true
    "${run[@]}" rm --force --volumes "${containers[$i]}" >/dev/null 2>&1 || true
  done
  for name in "${volumes[@]}"; do "${run[@]}" volume rm --force "$name" >/dev/null 2>&1 || true; done
  rm -rf "$work"
  exit "$code"
}
trap clean EXIT

fail() {
  say "FAILED: $*"
  exit 1
}

volume() {
  "${run[@]}" volume create "$prefix-$1" >/dev/null
  volumes+=("$prefix-$1")
}

# start NAME OPTION… IMAGE WORD…: a container that stays.
start() {
  local name=$prefix-$1
  shift
  containers+=("$name")
  "${run[@]}" run --detach --name "$name" "${hardened[@]}" "$@" >/dev/null
}

# once OPTION… IMAGE WORD…: a container that does one thing; --rm takes its volumes along.
once() { "${run[@]}" run --rm "${hardened[@]}" "${here[@]}" "$@"; }

# ready NAME WHAT: waits until the container's own hms-probe says yes.
ready() {
  local deadline=$((SECONDS + 90))
  until "${run[@]}" exec "$prefix-$1" hms-probe "$2" 2>/dev/null; do
    [ "$("${run[@]}" inspect --format '{{.State.Running}}' "$prefix-$1")" = true ] || fail "$1 has ended"
    [ "$SECONDS" -lt "$deadline" ] || fail "$1 does not become ready"
    sleep 0.3
  done
}

# healthy NAME: the image's own HEALTHCHECK says so.
healthy() {
  if [ "$engine" = podman ]; then
    "${run[@]}" healthcheck run "$prefix-$1" >/dev/null || fail "the HEALTHCHECK of $1 fails"
  else
    local deadline=$((SECONDS + 60))
    until [ "$("${run[@]}" inspect --format '{{.State.Health.Status}}' "$prefix-$1")" = healthy ]; do
      [ "$SECONDS" -lt "$deadline" ] || fail "the HEALTHCHECK of $1 fails"
      sleep 0.5
    done
  fi
}

# stopped NAME LINE: SIGTERM ends it with 0, and LINE is in its log.
stopped() {
  local code began=$SECONDS
  "${run[@]}" stop --time 40 "$prefix-$1" >/dev/null
  code=$("${run[@]}" inspect --format '{{.State.ExitCode}}' "$prefix-$1")
  [ "$code" = 0 ] || fail "$1 ended with $code"
  "${run[@]}" logs "$prefix-$1" 2>&1 | grep "$2" >/dev/null || fail "$1 did not say '$2'"
  say "ok: $1 stopped, exit code 0, after $((SECONDS - began)) s"
}

for name in operator auth-join claims-join; do volume "$name"; done

say "starting Auth-SVC, HMS-GOV and the control plane"
start auth-svc --network none hms-lost-package scripts.lost_package.auth_svc --port 8080
here=(--network "container:$prefix-auth-svc")
start hms-gov "${here[@]}" hms-lost-package scripts.lost_package.hms_gov --port 9100
start control "${here[@]}" --volume "$prefix-operator:/srv/operator" \
  --entrypoint hms-handover hms-control control
ready control control

# All are in one namespace, and names there are none. A call with X-Slow takes three seconds: one to drain.
sed -e 's#//hms-gov:#//127.0.0.1:#' \
  -e 's#retries: 2,#& fault: { delay: 3s, when: { header: { X-Slow: { present: true } } } },#' \
  "$root/docker/smoke.yaml" >"$work/mesh.yaml"
grep -q X-Slow "$work/mesh.yaml" || fail "docker/smoke.yaml has changed: there is no route to be slow on"
chmod -R a+rX "$work"
say "pushing the configuration, and a join token for each sidecar"
operator=(--volume "$prefix-operator:/srv/operator:ro" --env HMS_CONTROL=https://127.0.0.1:15010)
once "${operator[@]}" --volume "$root/configs/routes.yaml:/mesh/routes.yaml:ro" \
  --volume "$work/mesh.yaml:/mesh/mesh.yaml:ro" \
  --entrypoint hms-handover hms-control push /mesh/routes.yaml /mesh/mesh.yaml >&2
for service in auth claims; do
  once "${operator[@]}" --volume "$prefix-$service-join:/srv/join" --env "HMS_SERVICE=$service-svc" \
    --entrypoint hms-handover hms-control join
done

say "starting the sidecars"
sidecar=("${here[@]}" --env HMS_CONTROL=https://127.0.0.1:15010 --env HMS_ADVERTISE=127.0.0.1 --entrypoint hms-handover)
start auth-sidecar "${sidecar[@]}" --volume "$prefix-auth-join:/srv/join:ro" --env HMS_SERVICE=auth-svc \
  --env HMS_APP=http://127.0.0.1:8080 --env HMS_OUTBOUND=off hms-sidecar sidecar
# Two in one namespace: the second's admin port has to be another.
start claims-sidecar "${sidecar[@]}" --volume "$prefix-claims-join:/srv/join:ro" --env HMS_SERVICE=claims-svc \
  --env HMS_INBOUND=off --env HMS_ADMIN=127.0.0.1:15002 hms-sidecar sidecar
ready auth-sidecar ready
ready claims-sidecar ready
for name in control auth-sidecar claims-sidecar; do healthy "$name"; done
say "ok: all are healthy"

# The seed's own call. The first may come before Auth-SVC's address has reached Claims-SVC's sidecar.
answer=
for _ in $(seq 20); do
  answer=$(once --env SOLDIER_JWT=none hms-lost-package scripts.lost_package.claims)
  [[ $answer != *verified* ]] || break
  sleep 0.5
done
[[ $answer == *verified* ]] || fail "the seed's call: $answer"
say "ok: the seed's call: $answer"

python='
import json, ssl, sys, urllib.error, urllib.request
call = "http://127.0.0.1:15001/verify-id?host=auth-svc.svc"
with urllib.request.urlopen(call, timeout=10) as answer:
    arrived = {name.lower(): value for name, value in json.load(answer)["headers"].items()}
assert arrived["x-policy-version"] == "1.3.4", arrived
try:
    urllib.request.urlopen("http://127.0.0.1:15006/verify-id", timeout=10)
except OSError as error:
    plain = error
else:
    sys.exit("Auth-SVC can be had without TLS")
nobody = ssl._create_unverified_context()
try:
    urllib.request.urlopen("https://127.0.0.1:15006/verify-id", timeout=10, context=nobody)
except OSError as error:
    unknown = error
else:
    sys.exit("Auth-SVC can be had without a certificate")
print("X-Policy-Version arrives; without TLS:", plain, "; without a certificate:", unknown)
'
told=$(once --entrypoint python hms-lost-package -c "$python") || fail "mutual TLS: $told"
say "ok: mutual TLS: $told"

"${run[@]}" exec "$prefix-claims-sidecar" sh -c 'touch /opt/hms/x' 2>/dev/null && fail "the root can be written"
[ "$("${run[@]}" exec "$prefix-claims-sidecar" id -u)" = 1337 ] || fail "it does not run as 1337"
say "ok: uid 1337, a root that cannot be written"

slow='
import json, sys, urllib.request
call = urllib.request.Request("http://127.0.0.1:15001/verify-id?host=auth-svc.svc", headers={"X-Slow": "yes"})
print("called", file=sys.stderr, flush=True)
with urllib.request.urlopen(call, timeout=20) as answer:
    assert json.load(answer)["verified"]
'
once --entrypoint python hms-lost-package -c "$slow" 2>"$work/called" &
caller=$!
until [ -s "$work/called" ]; do sleep 0.1; done
sleep 0.5 # It has said so before it calls; three seconds are left.
stopped claims-sidecar draining
wait "$caller" || fail "the call in flight was cut off: $(cat "$work/called")"
say "ok: the call in flight was answered first"
stopped auth-sidecar draining
stopped control stopping
say "ok: all"
