import type { FilesystemUsage } from '../../proto/gen/runtime/v1/FilesystemUsage.ts';
import type { Image } from '../../proto/gen/runtime/v1/Image.ts';
import type { ImageFsUsage } from '../../src/image/fs-info.ts';
import type { Image as DomainImage } from '../../src/image/types.ts';

export function toImage(image: DomainImage): Image {
  const name = image.config.user.split(':')[0] ?? '';
  return {
    id: image.id,
    repo_tags: image.repoTags,
    repo_digests: image.repoDigests,
    size: String(image.size),
    // The kubelet's runAsNonRoot check reads the number, else the name.
    ...(/^\d+$/.test(name) ? { uid: { value: name } } : { username: name }),
    spec: { image: image.id },
    pinned: image.pinned,
  };
}

export function toFilesystemUsage(usage: ImageFsUsage): FilesystemUsage {
  return {
    timestamp: String(usage.timestamp),
    fs_id: { mountpoint: usage.mountpoint },
    used_bytes: { value: String(usage.usedBytes) },
    inodes_used: { value: String(usage.inodesUsed) },
  };
}
