"""Serve S3 by the gateway of a throw-away Ceph cluster: one monitor, one store in memory, no manager."""

import base64
import hmac
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from tests.kit.servers import BUCKET, HOST, Server, accepts, free_port, running, send, wait_until

_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_COMMAND_SECONDS = 60.0
_START_SECONDS = 60.0
_ACCESS = ("megacache", "megacache-loopback")

# radosgw asks for the monitor's `secure` mode unless told otherwise, and that mode needs cephx keys;
# a short paxos interval brings the cluster up in a second instead of ten.
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:{host}:{monitor}/0]
public_addr = {host}
cluster_addr = {host}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
admin_socket =
log_file =
mon_cluster_log_file =
debug_rocksdb = 0
mon_data = {workdir}/mon
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_data = {workdir}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_data = {workdir}/rgw
rgw_rados_pool_pg_num_min = 1
rgw_frontends = beast endpoint={host}:{gateway}
rgw_enable_apis = s3
rgw_dynamic_resharding = false
"""


def available() -> str | None:
    """Return why no cluster can run here, or None if one can."""
    if os.geteuid() != 0:
        return "ceph daemons are started as root"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: ceph-mon ceph-osd radosgw ceph-common)"
    return None


@contextmanager
def serve(workdir: Path) -> Iterator[Server]:
    """Run a cluster with one bucket, keeping its state in an empty folder."""
    monitor, gateway, fsid, osd = free_port(), free_port(), str(uuid.uuid4()), str(uuid.uuid4())
    conf = workdir / "ceph.conf"
    conf.write_text(_CONFIGURATION.format(host=HOST, workdir=workdir, fsid=fsid, monitor=monitor, gateway=gateway))
    _make_monitor(conf, fsid, f"[v2:{HOST}:{monitor}/0]")
    with running(["ceph-mon", "-c", conf, "-f", "-i", "a"], log=workdir / "mon.log") as mon:
        wait_until(lambda: accepts(monitor), _START_SECONDS, "ceph-mon", child=mon)
        _make_osd(conf, osd)
        with running(["ceph-osd", "-c", conf, "-f", "-i", "0"], log=workdir / "osd.log"):
            _make_user(conf)
            with running(["radosgw", "-c", conf, "-f", "-n", "client.rgw"], log=workdir / "rgw.log") as rgw:
                wait_until(lambda: accepts(gateway), _START_SECONDS, "radosgw", child=rgw)
                _make_bucket(gateway)
                yield _describe(gateway)


def _make_monitor(conf: Path, fsid: str, address: str) -> None:
    """Lay down the monitor's database."""
    monmap, data = conf.with_name("monmap"), conf.with_name("mon")
    data.mkdir()
    _command("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
    _command("ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap)


def _make_osd(conf: Path, osd: str) -> None:
    """Register the object store daemon, which gets the number 0."""
    conf.with_name("osd").mkdir()
    _command("ceph", "-c", conf, "osd", "new", osd)
    _command("ceph-osd", "-c", conf, "--mkfs", "-i", "0", "--osd-uuid", osd)


def _make_user(conf: Path) -> None:
    """Register the one user of the gateway."""
    key, secret = _ACCESS
    user = ("--uid=megacache", "--display-name=megacache", f"--access-key={key}", f"--secret-key={secret}")
    _command("radosgw-admin", "-c", conf, "user", "create", *user)


def _make_bucket(port: int) -> None:
    """Create the bucket by a request signed as in AWS signature version 2, the shortest there is."""
    key, secret = _ACCESS
    date = formatdate(usegmt=True)
    signed = hmac.digest(secret.encode(), f"PUT\n\n\n{date}\n/{BUCKET}".encode(), "sha1")
    authorization = f"AWS {key}:{base64.b64encode(signed).decode()}"
    send(port, "PUT", f"/{BUCKET}", headers={"Date": date, "Authorization": authorization})


def _describe(port: int) -> Server:
    """Describe the gateway that listens on a port."""
    key, secret = _ACCESS
    return Server(
        name="radosgw",
        url=f"s3://{BUCKET}",
        storage_options={"key": key, "secret": secret, "endpoint_url": f"http://{HOST}:{port}"},
        creates_if_absent=True,
        checks_credentials=True,
    )


def _command(*argv: str | Path) -> None:
    """Run a command to its end, or raise with what it wrote."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: ended with {done.returncode}\n{done.stderr[-2000:]}")
