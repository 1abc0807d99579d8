"""The facts that report and README cite: one flat mapping of names to values and tables.

They come from recorded results; costs come from formulas, and `attempts.csv` is typed by hand.
`flat` makes a fact of every cell of a table, `prefix.row.column`;
`table_fact` makes a table of text, with the columns and formats of `tables.csv`.
"""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

import smai_lib as smai
from smai_lib.colorization import coloring
from smai_lib.colorization import studies as colors
from smai_lib.core import paths
from smai_lib.core.study import read_table
from smai_lib.costs import formulas
from smai_lib.formats import SPACE, Mean, flat, means, show_value, table_fact
from smai_lib.multitask import recipe, studies, tradeoff
from smai_lib.studies import STUDIES

KNOWN_ACCURACY = 0.613  # of the table on test, measured before this project
WORDS = {"z_score": "z-scored", "test_accuracy": "accuracy", "test_rmse": "ink RMSE"}
ONE_PIXEL = {formulas.H: 1, formulas.W: 1}  # divides outputs and connections by HW
FRACTION = r"^\\frac\{(.+)\}\{(\d+)\}$"  # in a table too small to be read


def facts() -> dict[str, object]:
    """Return all facts of the recorded results."""
    values = published() | loss_weights() | ours() | colorization() | costs() | methods()
    return values | targets(values)


def published() -> dict[str, object]:
    """Return facts about the ten configurations: A as published, B trained here."""
    study = smai.load_study("q1_published")
    runs = studies.first_seed(study.results).join(studies.PUBLISHED.add_prefix("a_"))
    runs["weights"] = [f"{row.lambda1:g} : {row.lambda2:g}" for row in runs.itertuples()]
    placed = studies.placement_of_published(study)
    errors = np.array(studies.confusion(study, study.best))
    np.fill_diagonal(errors, 0)
    metrics = ("test_accuracy", "val_accuracy", "val_rmse")
    return {
        "q1.one_class": 1 / len(errors),
        "q1.chosen.name": study.best,
        "q1.chosen.errors": errors.sum(),
        "q1.chosen.worst_pair": (errors + errors.T).max(),
        "q1.placed": len(placed),
        "q1.outside": placed["outside"].sum(),
        **flat("q1", runs),
        **flat("q1.seeds", means(study.results)),
        **flat("q1.chosen", runs.loc[study.best].to_dict()),
        **flat("q1.agreement", {metric: studies.agreement(study, metric) for metric in metrics}),
        **flat("q1.ink", study.table("ink_baselines").set_index("ink predicted by")),
        **table_fact("q1.ten_runs", runs),
        **table_fact("q1.rmse", runs),
        **table_fact("q1.selection", studies.selection(study)),
    }


def loss_weights() -> dict[str, object]:
    """Return facts about the ratio of the loss weights."""
    study = smai.load_study("q1_lambda")
    gradients = study.history.groupby("name")[["class_gradient", "ink_gradient"]].mean()
    trends = tradeoff.trend_tests(study).replace(WORDS)
    return {
        **flat("q1.gradients", gradients),
        **flat("q1.ratio", means(study.results)),
        **flat("q1.trend", trends.set_index(trends["falls with the ratio"] + " " + trends["ink"])),
        **table_fact("q1.lambda_pairs", tradeoff.pair_tests(study).replace(WORDS)),
    }


def ours() -> dict[str, object]:
    """Return facts about C (ladder, recipe, residual network) and about probes of B."""
    best, ladder, beyond = (smai.load_study(f"q1_{n}") for n in ("best", "ladder", "beyond"))
    steps, residual = recipe.rungs(ladder), means(beyond.results)
    probes = read_table("q1_features.csv")
    networks = {"recipe": recipe.BEST, "residual": recipe.RESIDUAL} | studies.PUBLISHED_CONFIGS
    multiply_adds = {
        name: {"million_multiply_adds": recipe.multiply_adds(config.build_network()) / 1e6}
        for name, config in networks.items()
    }
    return {
        "q1.top_three": steps["share"].nlargest(3).sum(),
        **flat("q1.margin", recipe.MARGINS),
        **flat("q1.recipe", means(best.results).loc[recipe.RECIPE].to_dict()),
        **flat("q1.residual", residual.loc[beyond.best].to_dict()),
        **flat("q1.residual_adamw", residual.loc[recipe.ADAMW].to_dict()),
        **flat("q1.muon", recipe.gain_of_muon(beyond).set_index("prediction")),
        **flat("q1", multiply_adds),
        **flat("q1.probe", probes.set_index(probes["network"] + " " + probes["layer"])),
        **table_fact("q1.steps", steps),
        **table_fact("q1.ablation", recipe.ablation(best)),
    }


def colorization() -> dict[str, object]:
    """Return facts about Q2: baselines, the published runs, the networks, vivid colours."""
    sweep, models = smai.load_study("q2_sweep"), smai.load_study("q2_models")
    compared = colors.comparison(sweep).set_index("run")
    baselines = models.table("baselines").set_index("name")
    # a table predicts the same for a mirrored image
    mirrored = baselines.rename(columns=lambda key: key.replace("_", "_mirror_", 1))
    networks = means(models.results)
    class_gain = colors.gain_by_class(models, models.best, colors.TABLE)
    head_gain = colors.gain_by_class(models, colors.CLASS_HEAD, "U-Net")
    gains = models.table("intervals").query("metric == 'accuracy'").set_index("name")
    trials = smai.load_study("q2_search").results.query("state == 'complete'")
    return {
        "q2.search_images": trials["train_images"].iloc[0],
        "q2.vivid_images": colors.VIVID_IMAGES,
        "q2.never_found": len(colors.never_found(models)),
        "q2.table_distance": abs(baselines.loc[colors.TABLE, "test_accuracy"] - KNOWN_ACCURACY),
        "q2.published_best_nll": colors.BEST_PUBLISHED,
        "q2.best_distance": abs(compared["best_nll"].min() - colors.BEST_PUBLISHED),
        **flat("q2", compared),
        **flat("q2", baselines),
        **flat("q2", networks),
        **flat("q2.best", networks.loc[models.best].to_dict()),
        **flat("q2.class_head", colors.gain_by_seed(models, colors.CLASS_HEAD, "U-Net")),
        **flat("q2.width", colors.gain_by_seed(models, colors.WIDE_UNET, colors.CLASS_HEAD)),
        **flat("q2.muon", colors.gain_by_seed(models, colors.MUON_UNET, colors.WIDE_UNET)),
        **flat("q2.agreement", colors.agreement(sweep)),
        **flat("q2.agreement_without_17", colors.agreement(sweep, ["run 17"])),
        **flat("q2.gain", gains),
        **flat("q2.gain.best", gains.loc[models.best].to_dict()),
        **flat("q2.class_gain", class_gain.to_dict()),
        **flat("q2.head_gain", head_gain.to_dict()),
        **flat("q2.limit", models.table("ceiling").max().to_dict()),
        **flat("q2.search", trials.groupby("model")[["val_nll"]].min()),
        **flat("q2.trials", trials["model"].value_counts().to_dict()),
        **vivid(models.table("vividness")),
        **table_fact("q2.answers", pd.concat([mirrored, networks])),
        **table_fact("q2.color", pd.concat([baselines, networks])),
        **table_fact("q2.sweep", compared),
        **table_fact("q2.networks", networks),
    }


def vivid(table: pd.DataFrame) -> dict[str, object]:
    """Return the test metrics at vividness 0 ("likely") and 1 ("vivid")."""
    alpha = coloring.vivid_alpha(1.0, table)
    test = table.query("split == 'test'").drop(columns="split")
    likely = test.iloc[0].to_dict()
    vivid = {key: float(np.interp(alpha, test["alpha"], test[key])) for key in test}
    return {
        **flat("q2.likely", likely),
        **flat("q2.vivid", vivid),
        "q2.vivid.distance": abs(vivid["colorfulness"] / likely["colorfulness_palette"] - 1),
        "q2.vivid.accuracy_lost": likely["accuracy"] - vivid["accuracy"],
    }


def costs() -> dict[str, object]:
    """Return the formulas of the colorization network, and their values at the given sizes."""
    layers = formulas.formula_table()[["weights", "outputs", "macs"]]
    of_pixel = layers.map(lambda formula: formulas.latex(formula.subs(ONE_PIXEL)))
    in_one_line = of_pixel.drop("total").replace(FRACTION, r"\1 / \2", regex=True)
    published = formulas.PUBLISHED["macs"]
    sizes = []
    for k, side in [(3, 32), (3, 64), (5, 32), (5, 64)]:
        given = {"k": k, "H": side, "W": side}
        size = formulas.evaluate(**given).loc["total"].to_dict()
        size["published"] = formulas.value_at(published, **given)
        sizes.append(size | {"k": k, "side": f"{side} × {side}"})
    sizes = pd.DataFrame(sizes).eval("ratio = published / macs")
    return {
        "costs.published": formulas.latex(published.subs(ONE_PIXEL).expand()),
        **flat("costs", of_pixel.loc["total"].to_dict()),
        **flat("costs.ratio_k", sizes.groupby("k")["ratio"].first().to_dict()),
        **table_fact("costs.layers", ("$" + in_one_line + "$").rename_axis("layer")),
        **table_fact("costs.sizes", sizes),
    }


def methods() -> dict[str, object]:
    """Return facts about how everything was recorded."""
    provenance = json.loads((paths.RESULTS / "provenance.json").read_text(encoding="utf-8"))
    recorded = pd.DataFrame(provenance).T.rename_axis("study")
    recorded["count"] = recorded["runs"].fillna(recorded["trials"])
    recorded["source"] = recorded["data"].str.split(": ").str[0]
    results = pd.concat(smai.load_study(name).results for name in STUDIES if name in provenance)
    # a run that another study recorded too has the same seconds; trials of the search have no id
    trained = results[results["run_id"].isna() | ~results.duplicated(["run_id", "seconds"])]
    faults = read_table("faults.csv").set_index("fault")
    speed = read_table("speed.csv").query("arm.str.startswith('(c)')")
    return {
        "methods.hours": trained["seconds"].sum() / 3600,
        "methods.faults": faults.loc["all", "injected"],
        "methods.survived": faults.loc["all", "identical"] / faults.loc["all", "injected"],
        "methods.kills": faults.filter(like="SIGKILL", axis=0)["injected"].sum(),
        **flat("methods.speed", speed.pivot(index="cpu", columns="network", values="ratio to (a)")),
        **flat("attempt", pd.read_csv(paths.REPORT / "attempts.csv", index_col="attempt")),
        **table_fact("methods.studies", recorded),
        **table_fact("assignment", pd.read_csv(paths.REPORT / "assignment.csv")),
    }


def targets(values: Mapping[str, object]) -> dict[str, object]:
    """Return the targets of `targets.csv` with what was reached."""
    rows = pd.read_csv(paths.REPORT / "targets.csv", keep_default_na=False).to_dict("records")
    for row in rows:
        value, goal = values[row["fact"]], float(row["goal"])
        reached = value.mean if isinstance(value, Mean) else value
        hit = reached >= goal if row["sign"] == "≥" else reached <= goal
        row["verdict"] = "reached" if hit else "missed"
        row["goal"] = f"{row['sign']}{SPACE}{show_value(goal, row['format'])}"
        row["reached"] = show_value(value, row["format"])
    table = pd.DataFrame(rows)
    return table_fact("targets", table) | flat("targets", table["verdict"].value_counts().to_dict())
