from smai_lib.multitask import figures


def test_the_lambda_colours_are_the_reference_reports():
    colors = {pair: figures.LAMBDA_COLORS[figures.lambda_group(*pair)] for pair in ((1, 1), (2, 0.5), (0.5, 2))}
    assert colors == {(1, 1): "tab:blue", (2, 0.5): "tab:red", (0.5, 2): "tab:green"}
