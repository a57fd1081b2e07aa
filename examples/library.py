"""From a log to a searched architecture, as in a notebook: every `# %%` begins a cell.

    python examples/library.py

A made-up log is distilled, architectures are searched on the set alone, and the best one is
trained on the set's soft labels in a plain Torch loop. It is so small that it only shows the way:
of such a log nothing is saved, and its numbers mean nothing.
"""

# %%
import ray
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import diet_ray

diet_ray.start_logging()  # without it nothing is said

# One Ray for all cells; without it each call starts its own, which takes seconds.
ray.init(ignore_reinit_error=True, log_to_driver=False)

# %% The keys of a configuration; a YAML file's path would do as well.
config = diet_ray.RunConfig(
    output="results/library",
    logs={
        "source": "synthetic",
        "synthetic": {"rows": 6_000, "users": 150, "items": 100, "days": 6, "start": "2024-01-01"},
        "intervals": {
            "historical": ["2024-01-01", "2024-01-02", "2024-01-03"],
            "subsequent": "2024-01-04",
            "validation": "2024-01-05",
            "test": "2024-01-06",
        },
    },
    models={"embedding_dim": 8},
    distill={"rounds": 1, "outer_steps": 4, "inner": {"steps": 20, "window": 5}},
    evaluation={"methods": []},  # no check of the set: that trains on the whole log
)

# %% Distil it. What is there already is not made again.
distilled = diet_ray.distill(config)
print(distilled)

# %% Search on the set's folder, which may be copied anywhere: no log is needed any more.
space = {
    "dcn": {"num_cross_layers": {"integer": [1, 3]}, "dnn_hidden_units": [[16], [32, 16]]},
    "finalnet": {"block1_hidden_units": [[16], [32]], "block2_hidden_units": [[16]]},
}
searched = diet_ray.sweep(space, distilled=distilled.uri, output="results/library/sweep", trials=4)
print(searched)

# %% The leaderboard as a DataFrame, and the first candidate on it.
columns = ["place", "network", "parameters", "score", "score_deviation", "cost"]
print(searched.table[columns].to_string(index=False))
print(searched.best.network)

# %% That candidate in a Torch loop: it takes embeddings (B, F, d), and learns soft labels (B, K).
dataset = diet_ray.load_distilled(distilled.uri)
network = searched.best_network()
optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
losses = []
for _ in range(5):
    total = 0.0
    for embeddings, logits in torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True):
        loss = binary_cross_entropy_with_logits(network(embeddings), logits.sigmoid())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += len(logits) * loss.item()
    losses.append(total / len(dataset))
print("Loss by epoch:", *(f"{loss:.4f}" for loss in losses))
