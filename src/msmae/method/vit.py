"""The encoder: a plain vision transformer that may encode some of the patches only.

Parameter names are timm's (``patch_embed.proj``, ``blocks.0.attn.qkv``, ...), so weights travel both ways. What only
some pretrained encoders have (LayerScale, registers, SwiGLU, no class token) is off unless asked for.

Reference: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES: dict[str, dict[str, Any]] = {
    "nano": {"width": 128, "depth": 4, "heads": 4},
    "micro": {"width": 192, "depth": 6, "heads": 6},
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
}


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images [B, C, H, W] into flat patches [B, N, C*p*p], row by row; each patch is ordered (channel, y, x)."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def unpatchify(patches: Tensor, grid: tuple[int, int], channels: int) -> Tensor:
    """The inverse of :func:`patchify`: [B, N, C*p*p] -> [B, C, H, W]."""
    batch, _, length = patches.shape
    size = round((length // channels) ** 0.5)
    cells = patches.reshape(batch, *grid, channels, size, size)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, grid[0] * size, grid[1] * size)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Take tokens [B, N, D] at positions index [B, K] -> [B, K, D]."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def position_embedding(width: int, grid: tuple[int, int]) -> Tensor:
    """Fixed 2-D sine-cosine positions [1, 1+N, D]; the class token's is zero (He et al., arXiv 2111.06377)."""
    frequencies = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]  # each [N, D/4]
    patches = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)  # [N, D]
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches]).unsqueeze(0).float()


def resize_position_embedding(
    embedding: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    antialias: bool = False,
    offset: float = 0.0,
) -> Tensor:
    """Bicubically resample learned positions [1, P+N, D] from one patch grid to another; those of the P tokens before
    the patches are kept.

    Args:
        antialias: widen the filter where the new grid is smaller.
        offset: added to both sides of the new grid when its scale is computed (DINOv2's own repository: 0.1).
    """
    if old == new:
        return embedding
    leading = embedding.shape[1] - old[0] * old[1]
    grid = embedding[:, leading:].reshape(1, *old, -1).permute(0, 3, 1, 2).float()  # [1, D, h, w]
    if offset:
        scale = ((new[0] + offset) / old[0], (new[1] + offset) / old[1])
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        grid = F.interpolate(grid, size=new, mode="bicubic", antialias=antialias)
    return torch.cat([embedding[:, :leading], grid.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


class PatchEmbed(nn.Module):
    """Linear embedding of patches. It is stored as a convolution (timm's shape) and applied to chosen patches only."""

    def __init__(self, *, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, K, C*p*p] -> tokens [B, K, D]."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention [B, H, T, d]; fused, except where the fused kernel is the slower one.

    In bfloat16 on a CPU the fused kernel's backward pass takes several times as long as three plain products over the
    few hundred tokens of an image (docs/performance.md).
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] <= 512:
        weights: Tensor = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(dim=-1)
        return weights @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, H, T, D/H]
        mixed = attend(*qkv.unbind(0))  # [B, H, T, D/H]
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out

    def class_row(self, x: Tensor, leading: int = 1, *, class_token: bool = True) -> Tensor:
        """The softmax row of the class token's query over the patch keys: [B, P+N, D] -> [B, H, N].

        Needs the query of one token and the keys of all: no values, no N x N matrix. The columns of the P leading
        tokens take part in the softmax and are left out of the result. Without a class token the query is the mean of
        the patches'.
        """
        batch, tokens, width = x.shape
        query_weight, key_weight, _ = self.qkv.weight.chunk(3)
        query_bias, key_bias, _ = (None, None, None) if self.qkv.bias is None else self.qkv.bias.chunk(3)
        asking = x[:, :1] if class_token else x[:, leading:].mean(dim=1, keepdim=True)  # [B, 1, D]
        query = F.linear(asking, query_weight, query_bias).reshape(batch, 1, self.heads, -1).transpose(1, 2)
        keys = F.linear(x, key_weight, key_bias).reshape(batch, tokens, self.heads, -1).permute(0, 2, 3, 1)
        with torch.autocast(x.device.type, enabled=False):  # eight bits would tie the patches
            scores: Tensor = query.float() @ keys.float() * (width // self.heads) ** -0.5  # [B, H, 1, P+N]
        return scores.softmax(dim=-1)[:, :, 0, leading:]


class Mlp(nn.Module):
    """The two-layer perceptron of a block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwiGlu(nn.Module):
    """The perceptron with a gate (Shazeer, arXiv 2002.05202): SiLU of the first half of ``fc1`` times the second."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.fc2(F.silu(gate) * value)
        return out


class LayerScale(nn.Module):
    """A learned factor a channel on what a branch adds (CaiT, arXiv 2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def fold_layer_scale(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's weights with LayerScale multiplied into the layers before it: the same answers, two products a block
    fewer. The result fits an encoder without LayerScale.
    """
    folded = {name: tensor for name, tensor in state.items() if not name.endswith((".ls1.gamma", ".ls2.gamma"))}
    for name, gamma in state.items():
        for scale, layer in ((".ls1.gamma", ".attn.proj"), (".ls2.gamma", ".mlp.fc2")):
            if name.endswith(scale):
                before = name.removesuffix(scale) + layer
                folded[f"{before}.weight"] = state[f"{before}.weight"] * gamma.unsqueeze(1)
                folded[f"{before}.bias"] = state[f"{before}.bias"] * gamma
    return folded


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, skip the branch of a whole sample at the given rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        stays = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * stays.to(x.dtype) / (1 - self.rate)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        mlp: Literal["gelu", "swiglu"] = "gelu",
        qkv_bias: bool = True,
        layer_scale: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, qkv_bias=qkv_bias)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = (Mlp if mlp == "gelu" else SwiGlu)(width, round(width * mlp_ratio))
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        out: Tensor = mixed + self.drop_path(self.ls2(self.mlp(self.norm2(mixed))))
        return out


class VisionTransformer(nn.Module):
    """Vision transformer over all patches of an image, or over those a plan keeps.

    Args:
        image_size: (height, width) in pixels, each a multiple of ``patch_size``.
        patch_size: side of a square patch in pixels.
        channels: image channels.
        width: token width D, a multiple of 4 and of ``heads``.
        depth: number of blocks.
        heads: attention heads per block.
        mlp_ratio: hidden width of the perceptrons, in widths.
        drop_path: stochastic-depth rate of the last block; earlier blocks get linearly less.
        mlp: "gelu", or "swiglu", which has a gate (DINOv2's largest).
        qkv_bias: whether queries, keys and values have biases.
        layer_scale: a learned factor a channel on what each branch adds.
        registers: further learned tokens R without a position, which take part and are not read (arXiv 2309.16588).
        class_token: whether there is one.
        reads: what stands for the image: "class", the class token; "mean", the mean of the normalised patches;
            "norm-of-mean", the mean of the patches, normalised (MAE's fine-tuned models).
        norm_eps: what the norms add to the variance.

    Raises:
        ValueError: if the sizes do not divide one another, or the class token is to be read and there is none.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (224, 224),
        patch_size: int = 16,
        channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        mlp: Literal["gelu", "swiglu"] = "gelu",
        qkv_bias: bool = True,
        layer_scale: bool = False,
        registers: int = 0,
        class_token: bool = True,
        reads: Literal["class", "mean", "norm-of-mean"] = "class",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if any(side % patch_size or side < patch_size for side in image_size):
            raise ValueError(f"image size {image_size} is not a multiple of the patch size {patch_size}")
        if width % heads or width % 4:
            raise ValueError(f"width {width} must be a multiple of 4 and of the {heads} heads")
        if reads == "class" and not class_token:
            raise ValueError("there is no class token to read")
        self.grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.patch_size, self.channels, self.width, self.reads = patch_size, channels, width, reads
        self.patch_embed = PatchEmbed(channels=channels, patch_size=patch_size, width=width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        positions = position_embedding(width, self.grid)
        self.pos_embed = nn.Parameter(positions if class_token else positions[:, 1:])
        self.blocks = nn.ModuleList(
            Block(
                width, heads, mlp_ratio=mlp_ratio, drop_path=rate, mlp=mlp, qkv_bias=qkv_bias, layer_scale=layer_scale,
                norm_eps=norm_eps,
            )
            for rate in torch.linspace(0, drop_path, depth, device="cpu").tolist()
        )  # fmt: skip
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        initialise(self)

    @property
    def patches(self) -> int:
        """Number of patches N = h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def leading(self) -> int:
        """Number of tokens P before the patches in :meth:`embed`: the class token, then the registers."""
        return sum(0 if tokens is None else tokens.shape[1] for tokens in (self.cls_token, self.reg_token))

    @property
    def patch_positions(self) -> Tensor:
        """The positions of the patches, [1, N, D]."""
        return self.pos_embed[:, self.pos_embed.shape[1] - self.patches :]

    def embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """[CLS], the registers and the patches at positions keep [B, K] (all when None), with their positions:
        [B, P+K, D].
        """
        patches = patchify(images, self.patch_size)  # [B, N, C*p*p]
        positions = self.patch_positions.expand(images.shape[0], -1, -1)  # [B, N, D]
        if keep is not None:
            patches, positions = gather_tokens(patches, keep), gather_tokens(positions, keep)  # [B, K, ...]
        return self.with_leading(self.patch_embed(patches) + positions)

    def with_leading(self, tokens: Tensor) -> Tensor:
        """Embedded patches [B, K, D] -> [CLS], the registers and the patches [B, P+K, D]."""
        before = [] if self.cls_token is None else [self.cls_token + self.pos_embed[:, :1]]
        before += [] if self.reg_token is None else [self.reg_token]
        return torch.cat([*(part.to(tokens.dtype).expand(tokens.shape[0], -1, -1) for part in before), tokens], dim=1)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] -> normalised tokens [B, 1+K, D], what stands for the image first."""
        return self.encode(self.embed(images, keep))

    def encode(self, x: Tensor) -> Tensor:
        """Embedded tokens [B, P+K, D] through all blocks -> normalised tokens [B, 1+K, D]."""
        for block in self.blocks:
            x = block(x)
        return self.read(x)

    def read(self, x: Tensor) -> Tensor:
        """The last block's tokens [B, P+K, D] -> normalised tokens [B, 1+K, D]: what stands for the image, the patches.

        The registers have done their work and are left out.
        """
        tokens: Tensor = self.norm(x)
        patches = tokens[:, self.leading :]  # [B, K, D]
        if self.reads == "class":
            return tokens if self.leading == 1 else torch.cat([tokens[:, :1], patches], dim=1)
        if self.reads == "mean":
            return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        mean: Tensor = self.norm(x[:, self.leading :].mean(dim=1, keepdim=True))
        return torch.cat([mean, patches], dim=1)

    def class_attention(self, images: Tensor) -> Tensor:
        """The last block's class-token row over all patches of whole images: [B, C, H, W] -> [B, H, N].

        Under autocast the tokens between the blocks are in its precision as well: no gradient needs them exactly, and
        the maps' order stays (docs/performance.md).
        """
        x = self.embed(images)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        for block in self.blocks[:-1]:
            x = block(x)
        return self.class_row(len(self.blocks) - 1, x)

    def class_row(self, number: int, x: Tensor) -> Tensor:
        """Where the class token (or else the mean patch) looks in a block, of its input: [B, P+K, D] -> [B, H, K]."""
        block = self.blocks[number]
        assert isinstance(block, Block)
        return block.attn.class_row(block.norm1(x), self.leading, class_token=self.cls_token is not None)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform linear layers, zero biases, small normal class and mask tokens (as MAE's reference code)."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d) and name.endswith("proj"):
            nn.init.xavier_uniform_(part.weight.view(part.out_channels, -1))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "mask_token", "reg_token")):
            nn.init.normal_(parameter, std=0.02)
