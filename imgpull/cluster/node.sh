# What a node holds of one image, and its removal. POSIX sh, run in the node's own root (chroot) with
# the node's own tools, so that paths and symbolic links are the node's; image_cache.py reads the words.
# In:  ACTION purge|look, IMAGES (references and IDs of the image), LAYERS (digest=diff_id, from the
#      bottom; may be empty), USED_S and LIMIT_S to wait for containers, and for pulls, of it;
#      STILL_S until what does not grow is no pull.
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin
PATH=$PATH:/home/kubernetes/bin:/var/lib/rancher/rke2/bin # Google's and Rancher's places of crictl
LC_ALL=C
export PATH LC_ALL
set -f # words are digests and names, never patterns
newline='
'

finish() { printf '%s\n' "$@" end; exit 0; }

command -v crictl >/dev/null || finish 'error no-crictl'

# Without a configuration crictl tries sockets of other runtimes first, each for the whole limit.
if [ ! -e "${CRI_CONFIG_FILE:-/etc/crictl.yaml}" ] && [ -z "${CONTAINER_RUNTIME_ENDPOINT:-}" ]; then
  for socket in /run/containerd/containerd.sock /run/k3s/containerd/containerd.sock; do
    if [ -S "$socket" ]; then
      export CONTAINER_RUNTIME_ENDPOINT="unix://$socket" IMAGE_SERVICE_ENDPOINT="unix://$socket"
      break
    fi
  done
fi

# crictl's own limit of 2 s a call is too short to remove a large image. Its warnings go to stderr.
cri() { crictl --timeout 300s "$@" 2>/dev/null; }

info=$(cri info) || finish "error runtime $(crictl --timeout 10s info 2>&1 | tail -n 1)"
setting() { printf '%s\n' "$info" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
root=$(setting containerdRootDir)
socket=$(setting containerdEndpoint)
[ -n "$root" ] && [ -d "$root" ] || finish "error not-containerd $root"
blobs=$root/io.containerd.content.v1.content/blobs/sha256
ingests=$root/io.containerd.content.v1.content/ingest

# ctr comes with containerd and names snapshots by chain ID: what the next pull will look for.
snapshots_of() { ctr --address "$socket" --namespace k8s.io snapshots --snapshotter "$@" 2>/dev/null; }
snapshotters=''
if command -v ctr >/dev/null; then
  snapshotters=$(ctr --address "$socket" plugins ls 2>/dev/null |
    sed -n 's/^io\.containerd\.snapshotter\.v1  *\([^ ]*\) .* ok *$/\1/p')
fi
listing() { for snapshotter in $snapshotters; do snapshots_of "$snapshotter" ls; done; }
disk_bytes() { # without ctr: what all snapshots take
  set +f
  timeout 60 du -sk "$root"/io.containerd.snapshotter.v1.*/snapshots 2>/dev/null | {
    total=0
    while read -r kib _; do total=$((total + kib)); done
    echo $((total * 1024))
  }
  set -f
}

inspect() { cri inspecti -o json "$1" | tr -d '[:space:]'; echo; } # on one line
ids() {
  for image in $IMAGES; do
    inspect "$image" | sed -n 's/.*"id":"\(sha256:[0-9a-f]*\)".*/\1/p'
  done | sort -u
}
diff_ids() { inspect "$1" | sed -n 's/.*"diff_ids":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' ' '; }
chains() { # of diff IDs, from the bottom (image-spec, config.md: ChainID)
  chain=
  for diff_id in "$@"; do
    if [ -z "$chain" ]; then chain=$diff_id; else
      chain=sha256:$(printf '%s %s' "$chain" "$diff_id" | sha256sum | cut -d ' ' -f 1)
    fi
    echo "$chain"
  done
}
users() { # namespace/pod/container of each container, exited ones too, of these image IDs
  [ $# -gt 0 ] || return 0
  pattern=$(printf '%s\n' "$@")
  cri ps -a -o json | tr -d '[:space:]' | sed "s/\"podSandboxId\"/\\$newline&/g" |
    grep -F "$pattern" |
    sed -n 's/.*"io.kubernetes.container.name":"\([^"]*\)".*"io.kubernetes.pod.name":"\([^"]*\)".*"io.kubernetes.pod.namespace":"\([^"]*\)".*/\3\/\2\/\1/p'
}
among() { # the given chains that the listing $1 has, as committed snapshots
  there=$newline$1
  shift
  for each in "$@"; do
    case $there in *"$newline$each "*) echo "$each" ;; esac
  done
}
taken_bytes() { # by these snapshots
  [ $# -gt 0 ] || { echo 0; return; }
  total=0
  for snapshotter in $snapshotters; do
    here=$(among "$(snapshots_of "$snapshotter" ls)" "$@")
    [ -n "$here" ] || continue
    for bytes in $(snapshots_of "$snapshotter" usage -b $here | sed -n 's/^sha256:[^ ]*  *\([0-9]*\) .*/\1/p'); do
      total=$((total + bytes))
    done
  done
  echo "$total"
}
progress() { # of layers being fetched or unpacked: a line each, which grows while that goes on
  for name in $(ls "$ingests" 2>/dev/null); do
    read -r ref < "$ingests/$name/ref" || [ -n "$ref" ] || continue
    for each in $layer_digests; do
      case $ref in *"$each"*) echo "fetched $each $(wc -c < "$ingests/$name/data")" ;; esac
    done
  done 2>/dev/null
  for snapshotter in $snapshotters; do
    snapshots_of "$snapshotter" ls | sed -n 's/^\(extract-[^ ]* sha256:[0-9a-f]*\) .*/\1/p' |
      while read -r key; do
        case $newline$layer_chains$newline in
          *"$newline${key#* }$newline"*) snapshots_of "$snapshotter" usage -b "$key" | tail -n 1 ;;
        esac
      done
  done
}

# The layer table: the registry's, else that of the image as the node has it.
present=$(ids)
layer_digests='' layer_diff_ids='' known=registry
for layer in $LAYERS; do
  layer_digests="$layer_digests ${layer%%=*}"
  layer_diff_ids="$layer_diff_ids ${layer#*=}"
done
if [ -z "$layer_diff_ids" ]; then
  known=nothing
  for id in $present; do
    layer_diff_ids=$(diff_ids "$id")
    known=node
    break
  done
fi
layer_chains=$(chains $layer_diff_ids)
image_ids=$(for each in $IMAGES; do case $each in sha256:*) echo "$each" ;; esac; done)

stays() { # numbers, from the bottom, of the layers whose snapshot, then whose blob is here
  there=$(listing)
  number=0 snapshots='' fetched=''
  for each in $layer_chains; do
    number=$((number + 1))
    [ -z "$(among "$there" "$each")" ] || snapshots="$snapshots $number"
  done
  number=0
  for each in $layer_digests; do
    number=$((number + 1))
    [ ! -e "$blobs/${each#sha256:}" ] || fetched="$fetched $number"
  done
}
taken() { if [ -n "$snapshotters" ]; then taken_bytes "$@"; else disk_bytes; fi; }
remove() { # images by their IDs, with every name they have
  chains_of_all=$(for id in "$@"; do chains $(diff_ids "$id"); done | sort -u)
  before=$(taken $chains_of_all)
  for id in "$@"; do
    message=$(crictl --timeout 300s rmi "$id" 2>&1) || message="$message (failed)"
  done
  freed=$((freed + before - $(taken $chains_of_all)))
}

echo "images $(echo $present)"
started=$(date +%s)
freed=0 message='' quiet=0 grown='' grew=$started
# Whether a pull goes on. What one that was cut off has left stays for a day (containerd's leases),
# but does not grow.
goes_on() {
  growing=$(progress)
  [ "$growing" = "$grown" ] || { grown=$growing grew=$(date +%s); }
  [ -n "$growing" ] && [ $(($(date +%s) - grew)) -lt "$STILL_S" ]
}
if [ "$ACTION" = purge ]; then
  # Until nothing of it is used, listed or on its way. Between two layers a pull shows nothing: where
  # something stays, only three quiet looks are believed.
  while :; do
    under_way=0
    now=$(ids)
    using=$(users $now $image_ids)
    [ -n "$using" ] || [ -z "$now" ] || { remove $now; now=$(ids); }
    ! goes_on || under_way=1
    if [ -n "$using$now" ] || [ "$under_way" = 1 ]; then
      quiet=0
    else
      stays
      quiet=$((quiet + 1))
      [ -n "$snapshots$fetched$growing" ] && [ "$quiet" -lt 3 ] || break
    fi
    waited=$(($(date +%s) - started))
    [ "$waited" -lt "$LIMIT_S" ] && { [ -z "$using" ] || [ "$waited" -lt "$USED_S" ]; } || break
    sleep 1
  done
  [ -n "$using" ] || [ -z "$now" ] || echo "refused $(echo $message | cut -c 1-400)"
  echo "freed $freed"
else
  using=$(users $present $image_ids)
  under_way=0
  if [ -n "$(progress)" ]; then
    before=$(progress)
    sleep 2
    [ "$before" = "$(progress)" ] || under_way=1
  fi
fi
for each in $using; do echo "user $each"; done | head -n 5
stays

# Which other images have the lowest layer that stays?
lowest=$(printf '%s\n' $snapshots $fetched | sort -n | head -n 1)
if [ -n "$lowest" ]; then
  wanted=$(echo $layer_diff_ids | cut -d ' ' -f "$lowest")
  for id in $(cri images -q); do
    case " $(echo $(ids)) " in *" $id "*) continue ;; esac
    case $(inspect "$id") in
      *"$wanted"*) echo "sharer $(inspect "$id" | sed -n 's/.*"repoTags":\["\([^"]*\)".*/\1/p')" ;;
    esac
  done | head -n 3
fi

echo "known $known"
echo "layers $(echo $layer_chains | wc -w)"
echo "snapshots$snapshots"
echo "blobs$fetched"
echo "partly $(progress | grep -c '^fetched ')"
echo "under_way $under_way"
[ -n "$snapshotters" ] || echo no-ctr
echo "waited $(($(date +%s) - started))"
if [ "$ACTION" = purge ]; then
  # Only containerd's filesystem: a hung network mount must not hold this up.
  if dropped=$({ sync -f "$root" 2>/dev/null || sync; } 2>&1 && { echo 3 > /proc/sys/vm/drop_caches; } 2>&1); then
    echo 'page-cache dropped'
  else
    echo "page-cache $dropped"
  fi
fi
finish
