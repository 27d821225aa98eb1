"""gke.yaml: every field is known and correct, and typing errors are detected."""

import copy
import re

import pytest
import yaml
from commands import ROOT
from launch_sandbox import LAUNCH

# Optional and required (!) fields of each object, as in the schemas of JobSet v1alpha2 and Kubernetes. An API server
# may drop unknown fields silently, so that a typing error would go unnoticed.
FIELDS = {
    '': 'apiVersion! kind! metadata! spec!',
    'metadata': 'name! annotations labels namespace',
    'metadata.annotations': '*',
    'spec': 'network failurePolicy replicatedJobs! successPolicy suspend ttlSecondsAfterFinished coordinator',
    'spec.network': 'enableDNSHostnames subdomain publishNotReadyAddresses',
    'spec.failurePolicy': 'maxRestarts restartStrategy rules',
    'spec.failurePolicy.rules[]': 'name! action! onJobFailureReasons targetReplicatedJobs',
    'spec.replicatedJobs[]': 'name! template! replicas dependsOn groupName',
    'JOB': 'spec! metadata',
    'JOB.spec': 'template! parallelism completions completionMode backoffLimit podFailurePolicy activeDeadlineSeconds',
    'JOB.spec.podFailurePolicy': 'rules!',
    'JOB.spec.podFailurePolicy.rules[]': 'action! onExitCodes onPodConditions',
    'JOB.spec.podFailurePolicy.rules[].onExitCodes': 'operator! values! containerName',
    'POD': 'spec! metadata',
    'POD.spec': 'containers! restartPolicy nodeSelector volumes serviceAccountName tolerations '
    'terminationGracePeriodSeconds',
    'POD.spec.nodeSelector': '*',
    'POD.spec.volumes[]': 'name! persistentVolumeClaim',
    'POD.spec.volumes[].persistentVolumeClaim': 'claimName! readOnly',
    'POD.spec.containers[]': 'name! image workingDir command args env ports resources volumeMounts securityContext',
    'POD.spec.containers[].env[]': 'name! value valueFrom',
    'POD.spec.containers[].env[].valueFrom': 'fieldRef',
    'POD.spec.containers[].env[].valueFrom.fieldRef': 'fieldPath! apiVersion',
    'POD.spec.containers[].ports[]': 'containerPort! name protocol',
    'POD.spec.containers[].resources': 'requests limits',
    'POD.spec.containers[].resources.requests': '*',
    'POD.spec.containers[].resources.limits': '*',
    'POD.spec.containers[].volumeMounts[]': 'name! mountPath! readOnly subPath',
}
SHORT = {'spec.replicatedJobs[].template': 'JOB', 'JOB.spec.template': 'POD'}


def unknown_fields(value: object, path: str = '') -> list[str]:
    path = SHORT.get(path, path)
    if isinstance(value, list):
        return [problem for item in value for problem in unknown_fields(item, path + '[]')]
    if not isinstance(value, dict):
        return []
    if path not in FIELDS:
        return [f'{path} must not be an object']
    allowed = FIELDS[path].replace('!', '').split()
    needed = [field[:-1] for field in FIELDS[path].split() if field.endswith('!')]
    problems = [f'{path} lacks {field}' for field in needed if field not in value]
    for field, item in value.items():
        if allowed == ['*']:
            problems += [] if isinstance(item, str | int) else [f'{path}.{field} must be plain']
        elif field not in allowed:
            problems.append(f'{path} has the unknown field {field}')
        else:
            problems += unknown_fields(item, f'{path}.{field}'.lstrip('.'))
    return problems


def problems(jobset: dict) -> list[str]:
    """All that is wrong with the manifest; the rest is only looked at where the fields are right."""
    if found := unknown_fields(jobset):
        return found
    found = []

    def check(holds: bool, problem: str) -> None:
        if not holds:
            found.append(problem)

    check(jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2' and jobset['kind'] == 'JobSet', 'kind')
    name = jobset['metadata']['name']
    check(re.fullmatch(r'[a-z0-9]([-a-z0-9]*[a-z0-9])?', name) is not None, 'name')
    check(jobset['spec']['network']['enableDNSHostnames'] is True, 'host names')
    (jobs,) = jobset['spec']['replicatedJobs']
    job = jobs['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']

    # The slice: its hosts are the pods, and each pod takes all chips of its host.
    check(pod['nodeSelector']['cloud.google.com/gke-tpu-accelerator'] == 'tpu-v5-lite-podslice', 'accelerator')
    topology = [int(side) for side in pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')]
    chips = container['resources']['limits']['google.com/tpu']
    check(len(topology) == 2 and chips in (1, 4, 8), 'chips per host')  # of v5e
    check(container['resources']['requests']['google.com/tpu'] == chips, 'requests and limits')
    hosts = topology[0] * topology[1] // chips
    check(jobs['replicas'] == 1, 'one slice')
    check(job['parallelism'] == job['completions'] == hosts, 'hosts')
    topology_key = jobset['metadata']['annotations']['alpha.jobset.sigs.k8s.io/exclusive-topology']
    check(topology_key == 'cloud.google.com/gke-nodepool', 'one node pool')

    # How the processes find each other.
    variables = {variable['name']: variable for variable in container['env']}
    check(len(variables) == len(container['env']), 'a variable twice')
    host, _, port = variables['JAX_COORDINATOR_ADDRESS']['value'].partition(':')
    check(host == f'{name}-{jobs["name"]}-0-0.{name}', 'address of the coordinator')
    check([int(port)] == [opened['containerPort'] for opened in container['ports']], 'port of the coordinator')
    check(variables['JAX_NUM_PROCESSES']['value'] == str(hosts), 'number of processes')
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    check(variables['JAX_PROCESS_ID'].get('valueFrom', {}).get('fieldRef') == {'fieldPath': index}, 'id of a process')
    check(job['completionMode'] == 'Indexed', 'completion mode')
    check(all(isinstance(v.get('value', ''), str) for v in variables.values()), 'values are text')

    # All pods restart together, and only after failures that may not occur again.
    policy = jobset['spec']['failurePolicy']
    check(pod['terminationGracePeriodSeconds'] > 30, 'time to save a checkpoint after SIGTERM')
    check(job['backoffLimit'] == 0 and pod['restartPolicy'] == 'Never', 'no pod restarts by itself')
    check(policy['maxRestarts'] > 0 and policy['restartStrategy'] == 'BlockingRecreate', 'restarts')
    (bad_input,) = job['podFailurePolicy']['rules']
    codes = {'containerName': container['name'], 'operator': 'In', 'values': [2]}
    check(bad_input == {'action': 'FailJob', 'onExitCodes': codes}, 'bad input ends the job')
    rules = [(rule['action'], rule['onJobFailureReasons']) for rule in policy['rules']]
    check(rules == [('FailJobSet', ['PodFailurePolicy'])], 'bad input ends the set')

    # The command and its volumes.
    command = container['command']
    check(command[:3] == ['python', '-m', 'ssanet_jax.main'], 'command')
    flags = dict(flag.removeprefix('--').split('=', 1) for flag in command[3:])
    check((ROOT / flags['config'].partition(':')[0]).is_file(), 'configuration')
    mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
    check(set(mounts) == {volume['name'] for volume in pod['volumes']}, 'volumes')
    for flag in ('workdir', 'config.data.dir', 'config.model.pretrained'):
        check(any(flags.get(flag, '').startswith(f'{path}/') for path in mounts.values()), f'{flag} on a volume')
    return found


@pytest.fixture(scope='module')
def manifest() -> dict:
    (jobset,) = yaml.safe_load_all((LAUNCH / 'gke.yaml').read_text())
    return jobset


def test_manifest_is_right(manifest):
    assert problems(manifest) == []


JOB = ('spec', 'replicatedJobs', 0, 'template', 'spec')
POD = (*JOB, 'template', 'spec')
CONTAINER = (*POD, 'containers', 0)

# Path -> what is written there (None: nothing), each of which the test above must notice.
SLIPS = [
    (('apiVersion',), 'jobset.x-k8s.io/v1alpha1'),
    (('metadata', 'name'), 'other'),
    (('metadata', 'annotations', 'alpha.jobset.sigs.k8s.io/exclusive-topology'), 'zone'),
    (('spec', 'network', 'enableDNSHostnames'), False),
    (('spec', 'failurePolicy', 'maxRestart'), 3),
    (('spec', 'failurePolicy', 'rules'), []),
    (('spec', 'replicatedJobs', 0, 'replicas'), 2),
    ((*JOB, 'parallelism'), 2),
    ((*JOB, 'completions'), 8),
    ((*JOB, 'completionMode'), 'NonIndexed'),
    ((*JOB, 'backoffLimit'), 6),
    ((*JOB, 'podFailurePolicy', 'rules', 0, 'onExitCodes', 'containerName'), 'trainer'),
    ((*POD, 'restartPolicy'), 'OnFailure'),
    ((*POD, 'nodeSelector', 'cloud.google.com/gke-tpu-topology'), '4x8'),
    ((*POD, 'containers'), None),
    ((*POD, 'volumes', 0, 'name'), 'data'),
    ((*CONTAINER, 'resources', 'limits', 'google.com/tpu'), 8),
    ((*CONTAINER, 'command', 3), '--config=configs/nowhere.py'),
    ((*CONTAINER, 'command', 4), '--workdir=/tmp/run'),
    ((*CONTAINER, 'command', 6), None),  # random weights
    ((*CONTAINER, 'env', 0, 'value'), 'ssanet-hosts-0-1.ssanet:8476'),
    ((*CONTAINER, 'env', 1, 'value'), '8'),
    ((*CONTAINER, 'env', 2, 'valueFrom', 'fieldRef', 'fieldPath'), 'metadata.name'),
    ((*CONTAINER, 'ports', 0, 'containerPort'), 8471),
    ((*CONTAINER, 'volumeMounts', 0, 'mountpath'), '/data'),
]


@pytest.mark.parametrize('path, value', SLIPS, ids=lambda x: '.'.join(map(str, x)) if isinstance(x, tuple) else '')
def test_a_slip_in_the_manifest_is_noticed(path, value, manifest):
    wrong = copy.deepcopy(manifest)
    *way, last = path
    place = wrong
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert problems(wrong)


def test_manifest_by_the_models_of_the_api(manifest):
    models = pytest.importorskip('kubeflow_trainer_api.models', reason='kubeflow-trainer-api, the models of JobSet')
    read = models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict()

    def contains(more: object, less: object) -> bool:  # the models fill in defaults, and drop what they do not know
        if isinstance(less, dict):
            return isinstance(more, dict) and all(key in more and contains(more[key], less[key]) for key in less)
        if isinstance(less, list):
            return len(more) == len(less) and all(map(contains, more, less))
        return more == less

    assert contains(read, manifest)
