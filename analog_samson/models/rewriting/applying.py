"""A network with its layers rewritten: once, checked against the network that it was."""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from analog_samson.importing import import_named, is_import_name
from analog_samson.models.auditing import LOOKUPS, analog_layers, is_kept, quoted
from analog_samson.models.calibration import evaluating
from analog_samson.models.forward_pass import difference
from analog_samson.models.packing import Packing, packing_of, take_packed
from analog_samson.models.replacing import replace_everywhere
from analog_samson.models.rewriting.linear import linear
from analog_samson.models.rewriting.rule import Rewrite
from analog_samson.models.rewriting.table import RULES
from analog_samson.models.selecting import Selection


@dataclass(frozen=True)
class Rewriting:
    """A network before and after.

    Attributes:
        original: The network as it was given.
        network: A copy with its layers rewritten; the network itself where no rule takes a layer.
        kinds: Class of each layer that was rewritten, by its name, which now is that of what took
            its place: all layers in it are named `<name>.<...>`.

    Example:
        >>> rewriting = rewrite(nn.Sequential(nn.GRU(4, 8, batch_first=True)))
        >>> rewriting.kinds
        {'0': 'GRU'}
    """

    original: nn.Module
    network: nn.Module
    kinds: Mapping[str, str]

    def origin(self, layer: str) -> str:
        """The class that a layer of the rewritten network was rewritten from; "" if none."""
        return next((kind for name, kind in self.kinds.items() if _is_in(layer, name)), "")

    @torch.no_grad()
    def check(self, image: Tensor) -> None:
        """Raise unless both networks compute the same.

        Args:
            image: One input as the network takes it, shape (1, ...).

        Raises:
            ValueError: If the rewritten network cannot run, or its outputs differ by more than
                `TOLERANCE`.
        """
        if not self.kinds:
            return
        like = next(self.network.parameters())
        image = image.to(like if image.is_floating_point() else like.device)
        listed = ", ".join(f"{quoted(name)} ({kind})" for name, kind in self.kinds.items())
        with torch.random.fork_rng([]), evaluating(self.original), evaluating(self.network):
            expected = self.original(image.clone())
            try:
                found = self.network(image.clone())
            except Exception as error:  # whatever the network's own code raises
                raise ValueError(
                    f"The network does not run with its layers {listed} rewritten "
                    f"({type(error).__name__}: {error}). Its forward may only call such layers, "
                    "not read their weights or attributes; else keep them digital (keep_digital)."
                ) from error
        if differs := difference(expected, found):
            raise ValueError(
                f"The network with its layers {listed} rewritten does not compute what the network "
                f"does; the outputs differ {differs}. Correct the rule, or keep the layers digital "
                "(keep_digital)."
            )


@torch.no_grad()
def rewrite(
    network: nn.Module, rewrites: Sequence[str] = (), keep_digital: Sequence[str] = ()
) -> Rewriting:
    """Rewrite the layers of a network for which there is a rule.

    Layers stay as they are that have forward hooks or a patched forward, which would be lost, or
    share parameters with other layers. What a rule gives is not rewritten again.

    Args:
        network: Any network; left unchanged.
        rewrites: Importable names of rules, "package.module:name"; they come before `RULES`.
        keep_digital: Layers that stay as they are, as in `audit`.

    Returns:
        The network before and after.

    Raises:
        ValueError: If a name names no rule, or a rule fails or gives no module.

    Example:
        >>> rewriting = rewrite(nn.LSTM(4, 8, batch_first=True))
        >>> sorted(name for name, _ in rewriting.network.named_parameters())
        ['l0.hh.bias', 'l0.hh.weight', 'l0.ih.bias', 'l0.ih.weight']
    """
    rules = [*map(_imported, rewrites), *((rule, "") for rule in RULES)]
    with torch.random.fork_rng([]):
        built, kinds = _replacements(network, rules, keep_digital)
        for name, layer, place in _tied_to_lookups(network, keep_digital):
            built[id(layer)] = linear(layer.weight, layer.bias).train(layer.training)
            kinds[name] = f"Linear tied to {place}"
    if not built:
        return Rewriting(network, network, {})
    # torch's fast path of transformers reads weights past the forward of what is replaced
    rewritten = replace_everywhere(copy.deepcopy(network, dict(built)), {})
    if id(network) in built:
        for hook in filter(_is_ours, network._forward_hooks.values()):
            rewritten.register_forward_hook(hook)
        take_packed(rewritten, packing_of(network))
    return Rewriting(network, rewritten, kinds)


def trained_weights(
    rewriting: Rewriting, keep_digital: Sequence[str] = ()
) -> list[tuple[nn.Module, str, str]]:
    """The parameters of the original network that are mapped to arrays.

    Args:
        rewriting: The network.
        keep_digital: As in `audit`.

    Returns:
        Module, name in the module and name in the network, in the order of `analog_layers`: of a
        layer its weight, of one that was rewritten its parameters of two dimensions or more.

    Raises:
        ValueError: As `analog_layers`.

    Example:
        >>> rewriting = rewrite(nn.Sequential(nn.LSTM(4, 8)))
        >>> [name for _, _, name in trained_weights(rewriting)]
        ['0.weight_ih_l0', '0.weight_hh_l0']
    """
    owners = {name: owner for name, owner, _ in _weights(rewriting, keep_digital)}
    return [(*owner, name) for name, owner in owners.items()]


def layers_of_weights(
    rewriting: Rewriting, keep_digital: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The layers on arrays that hold each parameter of the original network.

    Args:
        rewriting: The network.
        keep_digital: As in `audit`.

    Returns:
        By the names of `trained_weights`: the layers of the rewritten network. Of a parameter of a
        layer that was rewritten they are all that the layer became.

    Example:
        >>> rewriting = rewrite(nn.Sequential(nn.Linear(8, 4), nn.LSTM(4, 8)))
        >>> layers_of_weights(rewriting)["0.weight"]
        ('0',)
        >>> layers_of_weights(rewriting)["1.weight_ih_l0"]
        ('1.l0.ih', '1.l0.hh')
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, _, layer in _weights(rewriting, keep_digital):
        found[name] = (*found.get(name, ()), layer)
    return found


def _weights(
    rewriting: Rewriting, keep_digital: Sequence[str]
) -> Iterator[tuple[str, tuple[nn.Module, str], str]]:
    """Names of parameters on arrays, where each is, and every layer on arrays that holds it."""
    first_names = {id(p): name for name, p in rewriting.original.named_parameters()}
    for layer in analog_layers(rewriting.network, keep_digital):
        name = next((name for name in rewriting.kinds if _is_in(layer, name)), None)
        module = rewriting.original.get_submodule(layer if name is None else name)
        keys = ["weight"]
        if name is not None:
            keys = [key for key, p in module.named_parameters() if p.ndim >= 2]
        for key in keys:
            *path, last = key.split(".")
            owner = module.get_submodule(".".join(path))
            full = ".".join(filter(None, (layer if name is None else name, key)))
            full = first_names.get(id(getattr(owner, last)), full)  # of a weight with several
            yield full, (owner, last), layer


def _replacements(
    network: nn.Module, rules: Sequence[tuple[Rewrite, str]], keep_digital: Sequence[str]
) -> tuple[dict[int, nn.Module], dict[str, str]]:
    """Replacements of modules, by their `id`, and their classes by their names."""
    known = {kind for rule, _ in rules for kind in rule.kinds}
    places: dict[int, list[str]] = defaultdict(list)
    for name, module in network.named_modules(remove_duplicate=False):
        places[id(module)].append(name)
    built: dict[int, nn.Module] = {}
    kinds: dict[str, str] = {}
    inside: set[int] = set()
    for name, module in network.named_modules():
        if id(module) in inside or _kind(module) not in known:
            continue
        names = places[id(module)]
        if is_kept(names, keep_digital) or _is_patched(module):
            continue
        found = _built(module, name, rules)
        if found is not None and not _shares(network, module, names):
            built[id(module)] = copy.deepcopy(found).train(module.training)
            kinds[name] = _kind(module).__name__
            inside.update(map(id, module.modules()))
    return built, kinds


def _tied_to_lookups(
    network: nn.Module, keep_digital: Sequence[str]
) -> Iterator[tuple[str, nn.Linear, str]]:
    """Linear layers whose weights are those of embeddings too, and the name of one of these.

    The layer on arrays holds weights of its own; the embedding stays digital.
    """
    owners: dict[int, dict[str, nn.Module]] = defaultdict(dict)
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)][name] = module
    for name, layer in network.named_modules():
        if type(layer) is not nn.Linear or _is_patched(layer) or is_kept([name], keep_digital):
            continue
        others = {n: m for n, m in owners[id(layer.weight)].items() if m is not layer}
        if others and all(isinstance(module, LOOKUPS) for module in others.values()):
            yield name, layer, next(iter(others))


def _imported(name: str) -> tuple[Rewrite, str]:
    if not is_import_name(name):
        raise ValueError(
            f"rewrites holds importable names of rules, 'package.module:name'; got {name!r}."
        )
    found = import_named(name, "rewriting rule")
    if not isinstance(found, Rewrite):
        raise ValueError(
            f"The rewriting rule {name!r} is a {type(found).__name__}; name an object of the class "
            "analog_samson.models.Rewrite."
        )
    return found, name


def _built(module: nn.Module, layer: str, rules: Sequence[tuple[Rewrite, str]]) -> nn.Module | None:
    """What the first rule that takes a module makes of it."""
    kind = _kind(module)
    for rule, name in rules:
        if kind not in rule.kinds:
            continue
        what = f"The rewriting rule {name or rule.build.__name__!r}"
        try:
            found = rule.build(module)
        except Exception as error:  # a rule may be anybody's
            raise ValueError(
                f"{what} fails for layer {quoted(layer)} ({kind.__name__}): "
                f"{type(error).__name__}: {error}"
            ) from error
        if found is module or not isinstance(found, nn.Module | None):
            gave = "the module itself" if found is module else f"a {type(found).__name__}"
            raise ValueError(
                f"{what} gives {gave} for layer {quoted(layer)} ({kind.__name__}); return a new "
                "module, or None where the rule does not apply."
            )
        if found is not None:
            return found
    return None


def _kind(module: nn.Module) -> type[nn.Module]:
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    return kind


def _is_patched(module: nn.Module) -> bool:
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return not all(map(_is_ours, hooks)) or "forward" in vars(module)


def _is_ours(hook: object) -> bool:
    return isinstance(hook, Selection | Packing)


def _shares(network: nn.Module, module: nn.Module, names: Sequence[str]) -> bool:
    """Whether a parameter of a module has a place outside it."""
    own = {id(parameter) for parameter in module.parameters()}
    return any(
        id(parameter) in own and not any(_is_in(place, name) for name in names)
        for place, parameter in network.named_parameters(remove_duplicate=False)
    )


def _is_in(name: str, whole: str) -> bool:
    """Whether a dotted name is that of something or of a part of it."""
    return not whole or name == whole or name.startswith(f"{whole}.")
