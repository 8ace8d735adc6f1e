"""Write tiny.index and tiny.data-00000-of-00001, beside this file, with TensorFlow itself.

They hold numbers of each type and shape that networks have, and the outputs of TensorFlow's own
layers for small images of even and odd sizes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "step": np.int64(3),
        "types/half": np.arange(4, dtype=np.float16) / 8,
        "types/float": np.arange(6, dtype=np.float32).reshape(1, 1, 1, 1, 6) / 8,
        "types/double": np.arange(6, dtype=np.float64).reshape(2, 3) / 8,
        "types/empty": np.zeros((0, 3), np.float32),
        "types/one": np.float32(2.5),
    }
    for kernel in (3, 5):
        values[f"kernel{kernel}"] = rng.normal(size=(kernel, kernel, 2, 3))
        values[f"depthwise{kernel}"] = rng.normal(size=(kernel, kernel, 2, 1))
    with tf.Graph().as_default(), tf.Session() as session:
        made = {}
        for rows, columns in ((6, 6), (7, 7), (6, 7), (7, 8)):
            size = f"{rows}x{columns}"
            x = rng.normal(size=(1, rows, columns, 2)).astype(np.float32)
            values[f"{size}/image"] = x
            made[f"{size}/pool"] = tf.nn.max_pool2d(x, 3, 2, "SAME")
            for kernel in (3, 5):
                w, d = (values[f"{kind}{kernel}"] for kind in ("kernel", "depthwise"))
                made[f"{size}/conv{kernel}"] = tf.nn.conv2d(x, w.astype(np.float32), 2, "SAME")
                made[f"{size}/depthwise{kernel}"] = tf.nn.depthwise_conv2d(
                    x, d.astype(np.float32), [1, 2, 2, 1], "SAME"
                )
        values |= session.run(made)
        saved = {}
        for name, value in values.items():
            kept = value if name.startswith(("types/", "step")) else value.astype(np.float32)
            saved[name] = tf.Variable(kept)
        saved["types/bfloat16"] = tf.Variable(tf.cast(np.array([1.5, -3], np.float32), tf.bfloat16))
        session.run(tf.variables_initializer(saved.values()))
        prefix = Path(__file__).with_name("tiny")
        tf.train.Saver(saved).save(session, str(prefix), write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    main()
