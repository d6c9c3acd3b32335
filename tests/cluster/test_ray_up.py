"""The `ray up` file: Ray's own schema and preparation, and what it must not open."""

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from cluster_manifests import CLUSTER, documents
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.util import prepare_config, validate_config

[CONFIG] = documents(CLUSTER / "ray-cluster.aws.yaml")
TYPES = CONFIG["available_node_types"]
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


def test_ray_knows_every_field():
    jsonschema.validate(CONFIG, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(CONFIG | {"idle_timeout_minute": 5}, SCHEMA)


def test_ray_prepares_it_without_asking_aws(monkeypatch):
    monkeypatch.setattr("boto3.client", None)
    monkeypatch.setattr("boto3.resource", None)
    prepared = prepare_config(copy.deepcopy(CONFIG))
    validate_config(prepared)
    assert {name: one["resources"] for name, one in prepared["available_node_types"].items()} == {
        "head": {"CPU": 0},
        "gpu": {"CPU": 8, "GPU": 1},
    }
    assert prepared["available_node_types"]["gpu"]["min_workers"] == 0


def test_gpus_are_spot_and_come_from_zero():
    gpu = TYPES["gpu"]
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] == CONFIG["max_workers"] > 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in TYPES["head"]["node_config"]
    assert CONFIG["idle_timeout_minutes"] <= 15


@pytest.mark.parametrize("name", TYPES)
def test_machines_have_roles_and_no_keys(name):
    node = TYPES[name]["node_config"]
    assert re.fullmatch(r"arn:aws:iam::\d{12}:instance-profile/example-[\w-]+", node["IamInstanceProfile"]["Arn"])
    assert "KeyName" not in node
    assert "UserData" not in node
    # Credentials of the machine only for who can make a PUT request from it, not one hop further.
    assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
    assert {TYPES[one]["node_config"]["IamInstanceProfile"]["Arn"] for one in TYPES}.__len__() == len(TYPES)
    assert "aws_credentials" not in CONFIG["provider"]
    assert CONFIG["auth"] == {"ssh_user": "ubuntu"}


@pytest.mark.parametrize("name", TYPES)
def test_ssh_is_not_open_to_the_world(name, monkeypatch):
    node = TYPES[name]["node_config"]
    assert node["SecurityGroupIds"]
    assert CONFIG["provider"]["use_internal_ips"] is True
    # The group that Ray would make: why ours is named.
    assert aws._create_default_ssh_inbound_rules()[0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    monkeypatch.setattr(aws, "_upsert_security_groups", None)
    assert aws._configure_security_group(copy.deepcopy(CONFIG)) == CONFIG


def test_nothing_is_kept_of_a_machine_that_is_gone():
    assert CONFIG["provider"]["cache_stopped_nodes"] is False
    assert "file_mounts" not in CONFIG


def test_the_jobs_api_is_the_heads_own():
    [start] = [shlex.split(one) for one in CONFIG["head_start_ray_commands"] if "ray start" in one]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--num-cpus=0" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    assert not [one for one in start if one.startswith(("--ray-client", "--dashboard-host=0"))]


def test_containers_may_do_little():
    options = CONFIG["docker"]["run_options"]
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert not [one for one in options if "privileged=true" in one or one in ("--privileged", "-v")]
