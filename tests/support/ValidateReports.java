import com.pixelmed.validate.DicomSRValidator;
import java.lang.reflect.Field;
import javax.xml.transform.Source;
import javax.xml.transform.Transformer;
import javax.xml.transform.URIResolver;

/**
 * Validates many reports in one start of Java: PixelMed's style sheets take seconds to load.
 *
 * They also look into a table of all context groups at most checks. PixelMed hands that table out without a
 * name, so that Java's XSLT parses it again each time; with its name it is parsed once a report.
 *
 * The class file lies beside this one, because a Java runtime alone cannot compile. After a change:
 * javac --release 8 -g:none -cp /usr/share/java/pixelmed.jar tests/support/ValidateReports.java
 */
public class ValidateReports implements URIResolver {
    private final URIResolver resolver;

    private ValidateReports(URIResolver resolver) {
        this.resolver = resolver;
    }

    @Override
    public Source resolve(String name, String base) throws javax.xml.transform.TransformerException {
        Source found = resolver.resolve(name, base);
        found.setSystemId(name);
        return found;
    }

    public static void main(String[] paths) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        Field field = DicomSRValidator.class.getDeclaredField("transformerPass1");
        field.setAccessible(true);
        Transformer transformer = (Transformer) field.get(validator);
        transformer.setURIResolver(new ValidateReports(transformer.getURIResolver()));
        for (String path : paths) {
            System.out.println("File " + path);
            System.out.println(validator.validate(path));
        }
    }
}
