"""The encoder: a plain vision transformer that can look at some of the patches only.

Parameter names are timm's (``patch_embed.proj``, ``blocks.0.attn.qkv``, ...), so weights travel both ways.

Reference: Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = {
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


def resize_position_embedding(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bicubically resample learned positions [1, 1+N, D] from one patch grid to another; the class token's is kept."""
    if old == new:
        return embedding
    grid = embedding[:, 1:].reshape(1, *old, -1).permute(0, 3, 1, 2)  # [1, D, h, w]
    grid = F.interpolate(grid.float(), size=new, mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


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

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, H, T, D/H]
        mixed = attend(*qkv.unbind(0))  # [B, H, T, D/H]
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out

    def class_row(self, x: Tensor) -> Tensor:
        """The softmax row of the class token's query over the patch keys: [B, 1+N, D] -> [B, H, N].

        Needs the query of one token and the keys of all: no values, no N x N matrix. The class token's own column
        takes part in the softmax and is left out of the result.
        """
        batch, tokens, width = x.shape
        query_weight, key_weight, _ = self.qkv.weight.chunk(3)
        query_bias, key_bias, _ = self.qkv.bias.chunk(3)
        query = F.linear(x[:, :1], query_weight, query_bias).reshape(batch, 1, self.heads, -1).transpose(1, 2)
        keys = F.linear(x, key_weight, key_bias).reshape(batch, tokens, self.heads, -1).permute(0, 2, 3, 1)
        with torch.autocast(x.device.type, enabled=False):  # eight bits would tie the patches
            scores: Tensor = query.float() @ keys.float() * (width // self.heads) ** -0.5  # [B, H, 1, 1+N]
        return scores.softmax(dim=-1)[:, :, 0, 1:]


class Mlp(nn.Module):
    """The two-layer perceptron of a block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


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

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = mixed + self.drop_path(self.mlp(self.norm2(mixed)))
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
        drop_path: stochastic-depth rate of the last block; earlier blocks get linearly less.

    Raises:
        ValueError: if the sizes do not divide one another.
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
    ) -> None:
        super().__init__()
        if any(side % patch_size or side < patch_size for side in image_size):
            raise ValueError(f"image size {image_size} is not a multiple of the patch size {patch_size}")
        if width % heads or width % 4:
            raise ValueError(f"width {width} must be a multiple of 4 and of the {heads} heads")
        self.grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.patch_size, self.channels, self.width = patch_size, channels, width
        self.patch_embed = PatchEmbed(channels=channels, patch_size=patch_size, width=width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(position_embedding(width, self.grid))
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio, drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self)

    @property
    def patches(self) -> int:
        """Number of patches N = h * w."""
        return self.grid[0] * self.grid[1]

    def embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """[CLS] and the patches at positions keep [B, K] (all when None), with their positions: [B, 1+K, D]."""
        patches = patchify(images, self.patch_size)  # [B, N, C*p*p]
        positions = self.pos_embed[:, 1:].expand(images.shape[0], -1, -1)  # [B, N, D]
        if keep is not None:
            patches, positions = gather_tokens(patches, keep), gather_tokens(positions, keep)  # [B, K, ...]
        tokens = self.patch_embed(patches) + positions
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        return torch.cat([cls_token.to(tokens.dtype), tokens], dim=1)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] -> normalised tokens [B, 1+K, D], the class token first."""
        return self.encode(self.embed(images, keep))

    def encode(self, x: Tensor) -> Tensor:
        """Embedded tokens [B, 1+K, D] through all blocks -> normalised tokens [B, 1+K, D]."""
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        return tokens

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
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return last.attn.class_row(last.norm1(x))


def initialise(module: nn.Module) -> None:
    """Xavier-uniform linear layers, zero biases, small normal class and mask tokens (as MAE's reference code)."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d) and name.endswith("proj"):
            nn.init.xavier_uniform_(part.weight.view(part.out_channels, -1))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
