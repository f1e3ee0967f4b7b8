"""Paths that are no ordinary file: none may hang, fill the memory or end in a traceback."""

import os
import socket
import threading

import pytest
import torch

from ckptools.errors import CkptoolsError, OpenError, UnknownFormat
from ckptools.formats import open_container
from tests.hostile.conftest import assert_bounded
from tests.hostile.examining import examine


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OpenError, match="no regular file"):
        open_container(str(tmp_path / "pipe"))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full", "/dev/tty"])
def test_devices_are_refused(device):
    if not os.path.exists(device):
        pytest.skip(f"no {device} here")
    with pytest.raises(OpenError):
        open_container(device)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OpenError):
            open_container("socket")


def test_links_that_lead_nowhere_or_in_circles(tmp_path):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "dangling").symlink_to("missing")
    for name in ("self", "a", "dangling", "missing"):
        with pytest.raises(OpenError):
            open_container(str(tmp_path / name))


def test_a_link_to_a_checkpoint_is_the_checkpoint(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "real.pth")
    (tmp_path / "link").symlink_to("real.pth")
    assert examine(str(tmp_path / "link")).tensors == 1


def test_a_folder_that_holds_itself(tmp_path):
    inner = tmp_path / "checkpoint-1"
    inner.mkdir()
    (inner / "checkpoint-1").symlink_to(tmp_path)
    (tmp_path / "model").symlink_to(tmp_path)
    with pytest.raises(UnknownFormat):
        open_container(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    torch.save({}, tmp_path / "secret.pth")
    (tmp_path / "secret.pth").chmod(0)
    with pytest.raises(OpenError, match="Permission"):
        open_container(str(tmp_path / "secret.pth"))


@pytest.mark.parametrize("name", ["", "\0", "x" * 5000, "a\0b"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(OpenError):
        open_container(name)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7, 8, 9, 21, 22, 511, 512])
@pytest.mark.parametrize("byte", [b"\0", b"P", b"\x80", b"{", b"(", b"\xff"])
def test_tiny_files(tmp_path, size, byte):
    path = tmp_path / "tiny"
    path.write_bytes(byte * size)
    with pytest.raises(CkptoolsError):
        open_container(str(path))


HEADS = {
    "nothing": b"",
    "zip": b"PK\x03\x04",
    "legacy": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "frame": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little"),
    "text": b"\x80\x02X\xff\xff\xff\x7f",
    "safetensors": (1 << 40).to_bytes(8, "little") + b'{"w":',
    "index": b'{"weight_map": ',
}


@pytest.fixture(scope="module")
def giants(tmp_path_factory, examined_alone):
    folder = tmp_path_factory.mktemp("giants")
    for name, head in HEADS.items():
        with (folder / name).open("wb") as file:
            file.write(head)
            file.truncate(1 << 41)
    return examined_alone({name: folder / name for name in HEADS})


@pytest.mark.parametrize("name", HEADS)
def test_a_huge_file_of_nothing_costs_nothing(name, giants):
    assert assert_bounded(name, giants)["error"] is not None


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(1 << 18)}, path)
    container = open_container(str(path))
    os.truncate(path, 3000)
    source = container.source
    with pytest.raises(OpenError):
        source.read_at(source.size - 100, 100)


def test_a_file_that_is_replaced_all_the_time(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(1000)}, path)
    whole = path.read_bytes()
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            path.write_bytes(whole[: len(whole) // 2])
            path.write_bytes(whole)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(50):
            examine(str(path))
    finally:
        stop.set()
        writer.join()
