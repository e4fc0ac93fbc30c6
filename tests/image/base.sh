#!/usr/bin/env bash
# A stand-in for python:3.11-slim-bookworm where no image registry can be reached: tests/image/base.sh NAME, as root.
# Needs buildah and debootstrap, both Debian packages. About a minute and a half; nothing to do where NAME exists.
set -euo pipefail
name=${1:?usage: tests/image/base.sh NAME}
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=chroot
if buildah inspect --type image "$name" >/dev/null 2>&1; then exit 0; fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv bookworm "$tree" >/dev/null
# Whoever this machine trusts, the build must trust too: it may reach the package index through a proxy.
cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
ln -sf python3 "$tree/usr/bin/python"
rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*

container=$(buildah from scratch)
buildah add --quiet "$container" "$tree" / >/dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$container"
buildah commit --quiet "$container" "$name" >/dev/null
buildah rm "$container" >/dev/null
