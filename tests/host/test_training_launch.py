"""DeepSpeed and FSDP, by configs as `accelerate config` writes them: refused before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training import picture_folder
from image_prompt.training import command as cli

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def given(tmp_path):
    data = picture_folder(tmp_path / "pictures")
    return ["--checkpoint", "a", "--clip-vision", "b", "--data", str(data), "--out", str(tmp_path / "out")]


# what `accelerate config` writes for two processes of one machine, whatever shares the model among them
COMMON = """
compute_environment: LOCAL_MACHINE
debug: false
downcast_bf16: 'no'
enable_cpu_affinity: false
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 2
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: false
"""
FSDP = f"""{COMMON}distributed_type: FSDP
fsdp_config:
  fsdp_activation_checkpointing: false
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_transformer_layer_cls_to_wrap: ''
  fsdp_version: 2
"""
DEEPSPEED = f"""{COMMON}distributed_type: DEEPSPEED
deepspeed_config:
  gradient_accumulation_steps: 1
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero_stage: 2
"""


def test_fsdp_by_accelerates_own_config_is_refused_before_comfyui_starts(given, tmp_path):
    """In two processes that its launcher starts."""
    config = tmp_path / "fsdp.yaml"
    config.write_text(FSDP)
    command = ROOT / "tests" / "helpers" / "command.py"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    done = subprocess.run(
        [*launcher, str(command), "train", *given], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode != 0
    # the launcher ends the other process, often before it speaks
    assert "accelerate is set to use FSDP; this trainer runs on one GPU" in done.stderr, done.stderr[-3000:]
    assert "starting ComfyUI" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_deepspeed_by_accelerates_own_config_is_refused_too(given, tmp_path, monkeypatch, caplog):
    """In the environment that its launcher makes; it starts processes only where DeepSpeed is installed."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    config = tmp_path / "deepspeed.yaml"
    config.write_text(DEEPSPEED)
    launched = []
    monkeypatch.setattr(launch, "deepspeed_launcher", launched.append)
    launch.launch_command(
        launch.launch_command_parser().parse_args(["--config_file", str(config), "train.py"])
    )
    for name, value in prepare_deepspeed_cmd_env(launched[0])[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "start_comfyui", lambda *_: pytest.fail("started"))
    assert cli.main(given) == 1
    assert "accelerate is set to use DeepSpeed; this trainer runs on one GPU" in caplog.text
    assert not (tmp_path / "out").exists()
