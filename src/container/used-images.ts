import type { ContainerRecord } from './record.ts';

/** Ids of the images that containers have as their own or as volumes. */
export function usedImages(containers: Iterable<ContainerRecord>): Set<string> {
  const used = new Set<string>();
  for (const { imageId, imageVolumes } of containers) {
    used.add(imageId);
    for (const volume of imageVolumes) used.add(volume.imageId);
  }
  return used;
}
