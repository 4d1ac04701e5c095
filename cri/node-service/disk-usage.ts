import type { DiskUsageResponse } from '../../proto/gen/berth/v1/DiskUsageResponse.ts';
import type { Services } from '../../src/services.ts';

/** DiskUsage: what images take of the disk, for people; the kubelet's ImageFsInfo has the sum. */
export async function diskUsageRpc(s: Services): Promise<DiskUsageResponse> {
  const usage = await s.images.diskUsage();
  const layers = [...usage.layers.values()];
  return {
    mountpoint: s.images.fsInfo().mountpoint,
    total_bytes: String(usage.totalBytes),
    free_bytes: String(usage.freeBytes),
    images: usage.images.map(({ image, bytes, uniqueBytes, isUsed }) => ({
      id: image.id,
      names: [...image.repoTags, ...image.repoDigests],
      bytes: String(bytes),
      unique_bytes: String(uniqueBytes),
      in_use: isUsed,
      pinned: image.pinned,
      layers: image.chainIds,
    })),
    layers: layers.map(({ chainId, bytes, inodes }) => ({
      chain_id: chainId,
      bytes: String(bytes),
      inodes: String(inodes),
    })),
    blobs: String(usage.blobs),
    blob_bytes: String(usage.blobBytes),
    layer_bytes: String(layers.reduce((sum, { bytes }) => sum + bytes, 0n)),
    removed_bytes: String(usage.removedBytes),
    garbage_bytes: String(usage.garbageBytes),
  };
}
