/** What an image must be made for (OCI image-spec, image-index.md, "platform"). */
export interface Platform {
  os: string;
  architecture: string;
  /** Such as `v8`; absent where the architecture has none. */
  variant?: string;
}

/** Go's names, which images use, for those of Node. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };
}

/** Other spellings of an architecture, as seen in images of `uname -m` minded builders. */
function normalise(platform: Platform): Platform {
  const { os, architecture, variant } = platform;
  if (architecture === 'x86_64' || architecture === 'x86-64') return { ...platform, architecture: 'amd64' };
  if (architecture === 'aarch64') return { os, architecture: 'arm64', variant: variant ?? 'v8' };
  if (architecture === 'arm64' && variant === undefined) return { ...platform, variant: 'v8' };
  return platform;
}

/**
 * How well something made for `offered` runs on `wanted`: undefined for not at all, otherwise the higher the
 * better. An amd64 `v2` or higher variant might need instructions that the processor lacks, so the
 * plain one is taken first; a 32-bit arm runs its own and lower variants.
 */
export function platformMatch(offered: Platform, wanted: Platform): number | undefined {
  const a = normalise(offered);
  const b = normalise(wanted);
  if (a.os !== b.os || a.architecture !== b.architecture) return undefined;
  const level = (p: Platform): number => Number(/^v(\d+)$/.exec(p.variant ?? '')?.[1] ?? 0);
  if (a.variant === b.variant) return 100;
  if (a.variant === undefined) return 50;
  if (b.variant === undefined) return b.architecture === 'amd64' ? 10 - level(a) : 10 + level(a);
  return level(a) <= level(b) ? 10 + level(a) : undefined;
}

/** `linux/arm64/v8` */
export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, ...(platform.variant ? [platform.variant] : [])].join('/');
}
