#!/bin/sh
# hms-handover: how the containers of one mesh come by their secrets, with nobody typing one in.
#
#   hms-handover control         run the control plane; what it says to operators (where it is, its CA's pin,
#                                once the admin token) goes into $OPERATOR/operator.env, mode 0600
#   hms-handover push FILE…      push the mesh's configuration, with what is there
#   hms-handover join            make a join token for $HMS_SERVICE; leave it, and the pin, in $JOIN
#   hms-handover sidecar         run a sidecar with what `join` has left
#
# OPERATOR (/srv/operator) makes whoever reads it master of the mesh: it belongs to the control plane and to the
# one-shot containers, never to a sidecar or an app. JOIN (/srv/join) is each sidecar's own; its token is good
# once, for this service, for ten minutes. Without an operator.env `push` and `join` take HMS_CONTROL,
# HMS_CA_PIN and HMS_ADMIN_TOKEN as they are.
set -eu
umask 077
operator=${OPERATOR:-/srv/operator}/operator.env
join=${JOIN:-/srv/join}

# What the file says, but for the address: the control plane knows itself as localhost.
as_operator() {
  [ -r "$operator" ] || return 0
  address=${HMS_CONTROL:-}
  . "$operator"
  [ -z "$address" ] || export HMS_CONTROL="$address"
}

case "${1:-}" in
  control)
    shift
    exec hms control "$@" >>"$operator"
    ;;
  push)
    shift
    as_operator
    exec hms config push --force "$@"
    ;;
  join)
    as_operator
    hms token create >"$join/token.new"
    printf '%s\n' "$HMS_CA_PIN" >"$join/pin"
    mv "$join/token.new" "$join/token"
    ;;
  sidecar)
    shift
    HMS_CA_PIN=$(cat "$join/pin")
    export HMS_CA_PIN HMS_TOKEN_FILE="$join/token"
    exec hms sidecar "$@"
    ;;
  *)
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
