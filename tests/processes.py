"""Processes of their own, for what a process decides once: how many devices it has, and among which workers it is."""

import json
import os
import subprocess
import sys

import tensorflow as tf


def make_two_devices():
    """Divides the CPU of this process into two logical ones, which has to come before anything is computed."""
    tf.config.set_visible_devices([], "GPU")
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


def start(script, *arguments, **variables):
    """Starts a script, with environment variables besides its own."""
    command = [sys.executable, script, *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def read(process):
    """What its last line says, which is JSON; fails where it failed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])
