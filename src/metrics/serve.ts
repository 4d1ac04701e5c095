import type { Services } from '../services.ts';
import type { SamplerCost } from '../stats/sampler.ts';
import { mapMetrics } from './collect.ts';
import { expose } from './exposition.ts';
import { PodsText } from './pods-text.ts';
import { MetricsServer } from './server.ts';

/**
 * Serves everything that berthd measures, where the configuration says.
 * @returns undefined when it says no
 * @throws BerthError when the address cannot be listened on
 */
export async function serveMetrics(s: Services, sampler: SamplerCost): Promise<MetricsServer | undefined> {
  const { enabled, ...where } = s.config.metrics;
  if (!enabled) return undefined;
  const read = async () => {
    const own = expose(await s.metrics.read(s, sampler));
    const pods = new PodsText();
    await mapMetrics(s, (pod) => pods.add(pod));
    return Buffer.concat([Buffer.from(own), ...pods.take()]);
  };
  return MetricsServer.listen(where, read, s.log);
}
