"""The supervisor against its real servers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import orjson
import psutil
import pymongo
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from regworkers_core.adapters.local_instance import born
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.processes import ProcessRef, drop_stale_pid_file, reaping, spawn
from regworkers_local.servers import SERVERS, Server
from regworkers_local.service_stores import Stores
from regworkers_local.stack import PortTaken, Stack, StartFailed
from regworkers_local.state import StackState
from tests.local.conftest import NewStack, stranger_on
from tests.support.fault_proxy import free_port
from tests.support.waiting import wait_until

MESSAGES = 300


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is none of the stack's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def document(state: StackState) -> Any:
    with pymongo.MongoClient[Any](state.address("mongo")) as client:
        return client["shop"]["things"].find_one({"_id": "kept"})


def write_document(state: StackState) -> None:
    with pymongo.MongoClient[Any](state.address("mongo")) as client:
        client["shop"]["things"].insert_one({"_id": "kept"})


def dynamodb(state: StackState, service: str = "dynamodb") -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=state.address("aws"), region_name="us-east-1", **keys)


def produce(state: StackState) -> None:
    producer = Producer({"bootstrap.servers": state.address("kafka"), "acks": "all", "linger.ms": 1})
    errors: list[Any] = []
    for number in range(MESSAGES):
        producer.produce(
            "things", str(number), partition=0, on_delivery=lambda error, _: errors.append(error)
        )
    producer.flush(20)
    assert errors == [None] * MESSAGES


def consumed(state: StackState) -> list[int]:
    consumer = Consumer({"bootstrap.servers": state.address("kafka"), "group.id": "reader"})
    consumer.assign([TopicPartition("things", 0, 0)])
    found: list[int] = []

    def all_there() -> bool:
        found.extend(
            int(message.value() or b"") for message in consumer.consume(MESSAGES, 0.5) if not message.error()
        )
        return len(found) >= MESSAGES

    wait_until(all_there, what=f"{MESSAGES} messages")
    consumer.close()
    return found


def stream_of(state: StackState) -> list[str]:
    """The sequence numbers of what the stream of `things` holds, from its beginning."""
    streams = dynamodb(state, "dynamodbstreams")
    (stream,) = streams.list_streams(TableName="things")["Streams"]
    (shard,) = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]["Shards"]
    place = {"StreamArn": stream["StreamArn"], "ShardId": shard["ShardId"]}
    begin = streams.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    records = streams.get_records(ShardIterator=begin)["Records"]
    return [each["dynamodb"]["SequenceNumber"] for each in records]


def test_a_second_up_keeps_every_process_and_port(new_stack: NewStack) -> None:
    first = new_stack().up()
    second = new_stack().up()
    assert set(first.processes) == set(SERVERS)
    assert second == first
    assert set(new_stack().status().values()) == {"running"}


def test_every_server_listens_on_the_loopback_address_only(new_stack: NewStack) -> None:
    for name, ref in new_stack().up().processes.items():
        process = ref.find()
        assert process is not None
        listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"], name


def test_data_and_ports_survive_down_and_up_and_down_leaves_no_process(new_stack: NewStack) -> None:
    stack = new_stack()
    before = stack.up()
    write_document(before)
    redis.Redis.from_url(before.address("redis")).set("kept", "1")
    dynamodb(before).create_table(
        TableName="things",
        KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "PK", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    dynamodb(before).put_item(TableName="things", Item={"PK": {"S": "unread"}})
    written = stream_of(before)
    assert len(written) == 1
    stack.down()
    assert not [ref.pid for ref in before.processes.values() if psutil.pid_exists(ref.pid)]
    assert set(stack.status().values()) == {"down"}
    after = stack.up()
    assert after.ports == before.ports
    assert document(after) is not None
    assert redis.Redis.from_url(after.address("redis")).get("kept") == b"1"
    assert dynamodb(after).list_tables()["TableNames"] == ["things"]
    assert stream_of(after) == written
    dynamodb(after).put_item(TableName="things", Item={"PK": {"S": "another"}})
    assert stream_of(after)[0] == written[0] and len(stream_of(after)) == 2


def test_a_killed_server_comes_back_on_its_port_with_its_data(new_stack: NewStack) -> None:
    stack = new_stack("mongo")
    before = stack.up()
    write_document(before)
    stack.kill("mongo")
    assert stack.status() == {"mongo": "dead"}
    after = stack.up()
    assert after.ports == before.ports
    assert after.processes != before.processes
    assert document(after) is not None


@pytest.mark.parametrize("killed", ["kafka", "aws"])
def test_a_kill_of_the_broker_or_of_its_storage_loses_no_acknowledged_message(
    new_stack: NewStack, killed: str
) -> None:
    stack = new_stack("kafka")
    before = stack.up()
    produce(before)
    stack.kill(killed)
    after = stack.up()
    assert after.ports == before.ports
    assert consumed(after) == list(range(MESSAGES))


def test_a_start_after_a_crash_says_what_the_tables_went_back_to_and_one_after_a_clean_stop_says_nothing(
    new_stack: NewStack,
) -> None:
    stack = new_stack("redis", "aws")

    def said() -> list[str]:
        lines: list[str] = []
        stack.up(lines.append)
        return [line for line in lines if "after a crash" in line]

    assert said() == []
    stack.kill("redis")
    stack.kill("aws")
    (line,) = said()
    assert line.startswith("aws: STARTED EMPTY")
    assert "`regworkers provision`, then `regworkers load`" in line
    stack.down()
    assert said() == []
    stack.kill("aws")
    (line,) = said()
    assert line.startswith("aws: WENT BACK TO ITS LAST CLEAN STOP")
    stack.restart("aws")
    assert said() == []


def test_the_services_are_served_over_the_embedded_database_and_come_back_after_a_kill(
    new_stack: NewStack,
) -> None:
    stack = new_stack("services")
    before = stack.up()
    assert set(before.processes) == {"mongo", "services"}, "it brings what it needs"
    with pymongo.MongoClient[Any](before.address("mongo")) as client:
        Stores.of(client).users.insert_one({"_id": "gu-1", "verifiedPhone": True, "blocked": False})

    def known(state: StackState) -> Any:
        url = f"{state.address('services')}/user/users/gu-1"
        request = urllib.request.Request(url, headers={"Authorization": "Bearer local"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return orjson.loads(answer.read())["verifiedPhone"]

    assert known(before) is True
    stack.kill("services")
    assert stack.status() == {"mongo": "running", "services": "dead"}
    after = stack.up()
    assert (after.ports, known(after)) == (before.ports, True)
    stack.down()
    assert set(stack.status().values()) == {"down"}


def test_the_services_know_the_prefix_of_the_process_that_starts_them(
    new_stack: NewStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_RESOURCE_PREFIX", "mine-")
    state = new_stack("services").up()
    with pymongo.MongoClient[Any](state.address("mongo")) as client:
        Stores.of(client, "mine-").users.insert_one({"_id": "gu-1"})
    url = f"{state.address('services')}/users/gu-1"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer local"})
    assert urllib.request.urlopen(request, timeout=10).status == 200


def test_restart_keeps_port_and_data(new_stack: NewStack) -> None:
    stack = new_stack("mongo")
    before = stack.up()
    write_document(before)
    after = stack.restart("mongo")
    assert (after.ports, after.processes != before.processes) == (before.ports, True)
    assert document(after) is not None


def test_a_paused_server_shows_as_paused_and_up_wakes_it(new_stack: NewStack) -> None:
    stack = new_stack("redis")
    before = stack.up()
    stack.pause("redis")
    assert stack.status() == {"redis": "paused"}
    assert stack.up() == before
    assert stack.status() == {"redis": "running"}


def test_a_paused_server_goes_on_after_resume_and_can_be_stopped_while_paused(new_stack: NewStack) -> None:
    stack = new_stack("redis")
    ref = stack.up().processes["redis"]
    stack.pause("redis")
    stack.resume("redis")
    assert stack.status() == {"redis": "running"}
    stack.pause("redis")
    stack.down()
    assert not psutil.pid_exists(ref.pid)
    assert "bye bye" in stack.logs("redis", 1)[0]  # it was asked, not killed


def test_a_taken_default_port_gives_a_free_one(new_stack: NewStack) -> None:
    with stranger_on(SERVERS["mongo"].default_port) as taken:
        state = new_stack("mongo").up()
        assert state.ports["mongo"] != taken
        write_document(state)


def test_a_remembered_port_in_a_strangers_hands_is_an_error_that_names_it(new_stack: NewStack) -> None:
    stack = new_stack("redis")
    port = stack.up().ports["redis"]
    stack.down()
    with stranger_on(port), pytest.raises(PortTaken, match=rf"redis: port {port} .*regworkers local reset"):
        stack.up()
    assert stack.up().ports["redis"] == port


def test_a_port_lost_to_a_stranger_while_starting_is_replaced(root: Path, new_stack: NewStack) -> None:
    class Unlucky(Stack):
        """Its first choice is taken by the time the server starts."""

        choices = 0

        def _choose_port(self, server: Server, state: StackState, reserved: ExitStack) -> None:
            self.choices += 1
            super()._choose_port(server, state, reserved)
            if self.choices == 1:
                state.ports[server.name] = taken

    with stranger_on(0) as taken:
        stack = Unlucky(root, servers=("mongo",))
        write_document(stack.up())
        assert stack.choices == 2


def test_stacks_that_start_at_once_each_have_a_port_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All want the same port, and it is free.
    wanted = replace(SERVERS["redis"], default_port=free_port(str(root)))
    monkeypatch.setitem(SERVERS, "redis", wanted)
    stacks = [Stack(root, f"clone-{number}", servers=("redis",)) for number in range(10)]
    states: list[StackState] = []
    threads = [threading.Thread(target=lambda each=each: states.append(each.up())) for each in stacks]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ports = {state.ports["redis"] for state in states}
        assert len(ports) == 10 and wanted.default_port in ports
        starts = [stack.log_file("redis").read_text().count(" is starting ") for stack in stacks]
        assert starts == [1] * 10, "no server lost a port that another had chosen"
    finally:
        for stack in stacks:
            stack.down()


def test_a_recycled_pid_is_neither_taken_for_a_server_nor_killed(
    new_stack: NewStack, stranger: subprocess.Popen[bytes]
) -> None:
    stack = new_stack("redis")
    state = stack.up()
    stack.kill("redis")
    state.processes["redis"] = ProcessRef(stranger.pid, born(psutil.Process(stranger.pid)) - 1)
    state.save(stack.state_file)
    assert stack.status() == {"redis": "dead"}
    with pytest.raises(UsageError, match="redis does not run"):
        stack.kill("redis")
    stack.down()
    assert stranger.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a start is not computed from the boot time")
@pytest.mark.parametrize("by_an_older_release", [False, True])
def test_a_clock_that_is_set_hides_no_server_from_the_one_who_stops_it(
    new_stack: NewStack, monkeypatch: pytest.MonkeyPatch, by_an_older_release: bool
) -> None:
    stack = new_stack("redis")
    state = stack.up()
    pid = state.processes["redis"].pid
    if by_an_older_release:
        state.processes["redis"] = ProcessRef(pid, psutil.Process(pid).create_time())
        state.save(stack.state_file)
    else:
        booted = psutil.boot_time()
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 60.0)
    assert stack.status() == {"redis": "running"}
    stack.reset()
    assert not psutil.pid_exists(pid)


def test_two_ups_at_once_start_each_server_once(new_stack: NewStack) -> None:
    found: list[StackState] = []
    threads = [threading.Thread(target=lambda: found.append(new_stack("redis").up())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]


def test_a_server_that_cannot_start_is_named_with_its_last_words_and_its_log(new_stack: NewStack) -> None:
    stack = new_stack("redis")
    folder = stack.log_file("redis").parent
    folder.mkdir(parents=True)
    (folder / "appendonlydir").write_text("not a folder")
    with pytest.raises(StartFailed, match=r"redis: valkey-server ended: .+; see .*server.log") as failed:
        stack.up()
    assert str(failed.value).splitlines()[1:] == [f"regworkers is imported from {PROJECT_ROOT}"]
    assert stack.logs("redis", 1)


def test_the_callers_aws_settings_do_not_reach_the_servers(
    new_stack: NewStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Either of them keeps the broker or the emulator from working when it is seen.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    monkeypatch.setenv("SERVICES", "sqs")
    produce(new_stack("kafka").up())


def test_a_context_manager_takes_all_down(root: Path) -> None:
    with Stack(root, servers=("redis",)) as stack:
        ref = stack.state.processes["redis"]
        assert ref.find() is not None
    assert not psutil.pid_exists(ref.pid)


def test_reset_deletes_data_and_forgets_ports(new_stack: NewStack) -> None:
    stack = new_stack("mongo")
    write_document(stack.up())
    stack.reset()
    assert not stack.folder.exists(), "there was no other server"
    assert document(stack.up()) is None
    other = new_stack("redis")
    other.up()
    other.down()
    stack.reset()
    assert set(other.state.ports) == {"redis"}
    other.reset()
    assert not other.folder.exists()


def test_instances_live_side_by_side(root: Path) -> None:
    with Stack(root, "one", servers=("redis",)) as one, Stack(root, "two", servers=("redis",)) as two:
        assert one.state.ports != two.state.ports
        one.kill("redis")
        assert two.status() == {"redis": "running"}


def test_an_instance_name_cannot_leave_the_folder(root: Path) -> None:
    with pytest.raises(UsageError, match="use 1 to 40 of"):
        Stack(root, "../elsewhere")


# What `make dev` was before it reaped: it starts the servers and outlives them.
PARENT = """
import sys
from pathlib import Path
from regworkers_local.stack import Stack
Stack(Path(sys.argv[1])).up()
print("up", flush=True)
input()
"""


def test_every_server_comes_back_below_a_parent_that_does_not_reap_the_killed_one(
    root: Path, new_stack: NewStack
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"up\n"
            stack = new_stack()
            before = stack.state
            for ref in before.processes.values():
                killed = psutil.Process(ref.pid)
                killed.kill()
                wait_until(lambda killed=killed: killed.status() == psutil.STATUS_ZOMBIE, what="a zombie")
            assert set(stack.status().values()) == {"dead"}
            after = stack.up()
            assert set(stack.status().values()) == {"running"}
            assert after.ports == before.ports
        finally:
            parent.kill()


def test_a_pid_file_of_a_living_server_is_kept(new_stack: NewStack, root: Path) -> None:
    stack = new_stack("mongo")
    stack.up()
    file = stack.folder / "mongo" / "nx.pid"
    drop_stale_pid_file(file)
    assert file.exists()
    other = root / "nx.pid"
    other.write_text(file.read_text())
    drop_stale_pid_file(other)
    assert not other.exists(), "that process runs, and is not the server of this file"


def test_a_process_that_outlives_its_servers_reaps_them_and_leaves_other_children_alone(
    root: Path, stranger: subprocess.Popen[bytes]
) -> None:
    with reaping():
        ref = spawn(["true"], cwd=root, env={}, log=root / "log")
        wait_until(lambda: not psutil.pid_exists(ref.pid), what="the child reaped")
        stranger.kill()
        assert stranger.wait() == -signal.SIGKILL
