"""What packaging/kubernetes says, for those that check it.

    manifests.py check                    is all of it in order? Says every mistake; status 1 if there is one
    manifests.py container POD NAME [--found]   the container's environment and arguments as a kubelet would give them to it: words for a shell
    manifests.py files VOLUME DIRECTORY   writes the files of a volume that is a ConfigMap

Schemas are Kubernetes' own, as the package kubernetes-validate has them: of the oldest release that is meant to work, and of the newest that the
package knows. What a schema cannot say, that one object names what another one has, is checked here. kustomize itself is not needed: of what it can do,
kustomization.yaml uses lists of files, tags of images and patches of a ConfigMap, which is all that is read here.
"""

import pathlib
import shlex
import sys

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent / "kubernetes"
VERSIONS = ["1.25", kubernetes_validate.latest_version()]
NAME = "app.kubernetes.io/name"
# What a daemon needs beside draining: PostgreSQL's shutdown, its own.
STOPPING_SECONDS = 90


def load(overlay):
    """The objects of an overlay, by kind and name."""
    kustomization = yaml.safe_load((HERE / overlay / "kustomization.yaml").read_text())
    unknown = set(kustomization) - {"apiVersion", "kind", "resources", "images", "patches"}
    if unknown:
        raise SystemExit(f"manifests: error: {overlay}: this check does not know {sorted(unknown)}")
    objects = {}
    for resource in kustomization["resources"]:
        if resource.startswith("../"):
            objects.update(load(resource.removeprefix("../")))
        else:
            for document in yaml.safe_load_all((HERE / overlay / resource).read_text()):
                objects[document["kind"], document["metadata"]["name"]] = document
    for patch in kustomization.get("patches", []):
        document = yaml.safe_load(patch["patch"])
        objects[document["kind"], document["metadata"]["name"]]["data"].update(document["data"])
    return objects


def of_kind(objects, kind):
    return [document for (found, _), document in objects.items() if found == kind]


def containers(nodes):
    pod = nodes["spec"]["template"]["spec"]
    return pod["initContainers"] + pod["containers"]


def value_of(entry, objects, pod):
    if "value" in entry:
        return entry["value"]
    source = entry["valueFrom"]
    if "fieldRef" in source:
        assert source["fieldRef"]["fieldPath"] == "metadata.name", source
        return pod
    reference = source["configMapKeyRef"]
    return objects["ConfigMap", reference["name"]]["data"][reference["key"]]


def mistakes(overlay):
    objects = load(overlay)
    # What has not the form can have no sense.
    of_form = list(mistakes_of_form(objects))
    if of_form:
        yield from of_form
        return
    [nodes] = of_kind(objects, "StatefulSet")
    yield from mistakes_of_names(objects, nodes)
    yield from mistakes_of_containers(objects, nodes)


def mistakes_of_form(objects):
    for document in objects.values():
        name = f"{document['kind']} {document['metadata']['name']}"
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}, by Kubernetes {version}: {error.message}"
        if "namespace" in document["metadata"]:
            yield f"{name} names a namespace"


def mistakes_of_names(objects, nodes):
    labels = nodes["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for container in containers(nodes) for port in container.get("ports", [])}
    if nodes["spec"]["selector"]["matchLabels"].items() - labels.items():
        yield "the StatefulSet does not select its own pods"
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        if service["spec"]["selector"].items() - labels.items():
            yield f"Service {name} does not select the nodes"
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"Service {name}: no container has the port {port['targetPort']}"
    headless = objects.get(("Service", nodes["spec"]["serviceName"]))
    if not headless or headless["spec"].get("clusterIP") != "None" or not headless["spec"].get("publishNotReadyAddresses"):
        yield "serviceName must be a headless Service that publishes addresses that are not ready"
    for kind in ["PodDisruptionBudget", "NetworkPolicy"]:
        for document in of_kind(objects, kind):
            selector = document["spec"]["selector" if kind == "PodDisruptionBudget" else "podSelector"]
            if selector["matchLabels"].items() - labels.items():
                yield f"{kind} does not select the nodes"
    for budget in of_kind(objects, "PodDisruptionBudget"):
        if budget["spec"].get("maxUnavailable") != 1:
            yield "PodDisruptionBudget: maxUnavailable must be 1: two of three are the majority"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                if port["port"] not in ports:
                    yield f"NetworkPolicy: no container has the port {port['port']}"
    pod = nodes["metadata"]["name"]
    [configuration] = of_kind(objects, "ConfigMap")
    wanted = [f"{pod}-{number}" for number in range(nodes["spec"]["replicas"])]
    if configuration["data"]["members"].split() != wanted:
        yield f"members of the ConfigMap must be {' '.join(wanted)}"


def mistakes_of_containers(objects, nodes):
    pod = nodes["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in nodes["spec"]["volumeClaimTemplates"]}
    for container in containers(nodes):
        name = container["name"]
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes.keys() | claims:
                yield f"container {name}: there is no volume {mount['name']}"
        for entry in container["env"]:
            try:
                value_of(entry, objects, f"{nodes['metadata']['name']}-0")
            except KeyError as error:
                yield f"container {name}, {entry['name']}: there is no {error}"
        if "certificates" in {mount["name"] for mount in container["volumeMounts"]} and name != "gcs":
            yield f"container {name} sees the keys of the nodes, which only gcs needs"
        for probe in ["startupProbe", "livenessProbe"]:
            if probe in container and container[probe].get("httpGet", {}).get("path") != "/healthz":
                yield f"container {name}: {probe} must ask /healthz: by whatever else, a node that gets a copy would be killed"
        security = container["securityContext"]
        if security.get("allowPrivilegeEscalation") is not False or security.get("readOnlyRootFilesystem") is not True:
            yield f"container {name} must be confined"
    for volume in volumes.values():
        for item in volume.get("configMap", {}).get("items", []):
            if item["key"] not in objects["ConfigMap", volume["configMap"]["name"]]["data"]:
                yield f"volume {volume['name']}: there is no {item['key']}"
    if not pod["securityContext"].get("runAsNonRoot") or nodes["spec"].get("podManagementPolicy") != "Parallel":
        yield "the pods must not run as root, and not wait for each other"
    [configuration] = of_kind(objects, "ConfigMap")
    if pod["terminationGracePeriodSeconds"] < int(configuration["data"]["drain-seconds"]) + STOPPING_SECONDS:
        yield f"terminationGracePeriodSeconds must be {STOPPING_SECONDS} more than drain-seconds at least"


def check():
    found = [f"{overlay}: {mistake}" for overlay in ["group", "found"] for mistake in mistakes(overlay)]
    groups = {overlay: load(overlay)["ConfigMap", "postgres-r"]["data"]["found"] for overlay in ["group", "found"]}
    if groups != {"group": "no", "found": "yes"}:
        found.append(f"who founds: {groups}")
    for mistake in found:
        print(f"manifests: error: {mistake}", file=sys.stderr)
    if found:
        raise SystemExit(1)
    print(f"manifests: {len(load('group'))} objects are in order, by the schemas of Kubernetes {' and '.join(VERSIONS)}")


def container(pod, name, overlay):
    objects = load(overlay)
    [nodes] = of_kind(objects, "StatefulSet")
    [wanted] = [container for container in containers(nodes) if container["name"] == name]
    environment = [f"{entry['name']}={value_of(entry, objects, pod)}" for entry in wanted["env"]]
    print(shlex.join(["env", *environment, "postgres-r-node", *wanted["args"]]))


def files(volume, directory):
    objects = load("group")
    [nodes] = of_kind(objects, "StatefulSet")
    [wanted] = [found for found in nodes["spec"]["template"]["spec"]["volumes"] if found["name"] == volume]
    for item in wanted["configMap"]["items"]:
        text = objects["ConfigMap", wanted["configMap"]["name"]]["data"][item["key"]]
        (pathlib.Path(directory) / item["path"]).write_text(text)


match sys.argv[1:]:
    case ["check"]:
        check()
    case ["container", pod, name]:
        container(pod, name, "group")
    case ["container", pod, name, "--found"]:
        container(pod, name, "found")
    case ["files", volume, directory]:
        files(volume, directory)
    case _:
        raise SystemExit(__doc__)
