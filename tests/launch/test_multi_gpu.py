"""multi_gpu.sh: one process trains on all GPUs, and the script returns its exit code."""

from launch_sandbox import CONFIG, DIR, FLAG, TRAIN


def test_multi_gpu_trains_in_one_process(sandbox):
    sandbox.tool('nvidia-smi')
    sandbox.real('env')
    python = sandbox.tool('python', '[[ $* == *count* ]] && echo 8; [[ $1 == -m ]] && exit 3; exit 0')
    done = sandbox.run('multi_gpu.sh', CONFIG, DIR, FLAG, PYTHON=str(python))
    assert done.returncode == 3  # that of the training
    assert 'training on 8 GPUs' in done.stderr
    assert sandbox.calls()[-1] == ['python', *TRAIN]
    assert sum('-m' in call for call in sandbox.calls()) == 1
