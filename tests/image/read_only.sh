# Runs a command in an image as `docker run --read-only --tmpfs /tmp --tmpfs /app/var` does, where only buildah is there:
# unshare --mount --propagation private sh -eu read_only.sh ROOT COMMAND…, as root.
root=$1
shift
mount --bind "$root" "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o uid=10001,gid=10001,mode=0700 tmpfs "$root/app/var"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot --userspec=10001:10001 "$root" env -i -C /app HOME=/app PATH=/opt/relay/bin:/usr/local/bin:/usr/bin:/bin "$@"
