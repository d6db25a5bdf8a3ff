"""Let a trained model write:  python use_model.py runs/gpt-1"""

import sys

from minipar.models import generate
from minipar.parallel import checkpoint
from minipar.recipes import build_model
from minipar.run_folder import RunFolder

run = RunFolder(sys.argv[1])
arrays, meta = checkpoint.load(run.latest_checkpoint())
weights = {
    name.removeprefix("model/"): array
    for name, array in arrays.items()
    if name.startswith("model/")  # the others are the optimizer's
}
model = build_model(run.config())
model.load_state_dict(weights)
text = generate(model, prompt=b"def ", count=100, seed=0, temperature=0.7)
print(f"after {meta['step']} steps it writes:")
print(text.decode(errors="replace"))
